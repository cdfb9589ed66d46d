"""The objects that make a cluster use us, as `hami scheduler config` prints them.

Plain dictionaries made from one `Site`, so that chart, demo and tests apply the
very same objects. Knows names and formats of Kubernetes, applies nothing.
"""

from hami.scheduler.manifests.extender import scheduler_configuration
from hami.scheduler.manifests.people import people
from hami.scheduler.manifests.policies import agent_policy, controller_policy, record_policy
from hami.scheduler.manifests.printed import to_yaml
from hami.scheduler.manifests.rbac import rbac
from hami.scheduler.manifests.site import Manifest, Site
from hami.scheduler.manifests.webhook import mutating_webhook

__all__ = [
    "Manifest",
    "Site",
    "admission",
    "agent_policy",
    "controller_policy",
    "mutating_webhook",
    "people",
    "rbac",
    "record_policy",
    "scheduler_configuration",
    "to_yaml",
]


def admission(site: Site) -> list[Manifest]:
    """The webhook and the policies, in the order in which they are safely applied."""
    return [*record_policy(site), *agent_policy(site), *controller_policy(site), mutating_webhook(site)]
