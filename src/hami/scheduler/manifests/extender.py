"""KubeSchedulerConfiguration: a stock kube-scheduler that asks us about pods with our resources."""

from urllib.parse import urlsplit

from hami.scheduler.manifests.site import Manifest, Site

# kube-scheduler adds, a node, each score plugin's 0 to 100 times its weight, and an extender's 0 to 10 times
# weight times 10. /prioritize gives 10 to one node and 0 to the others, so our node wins if
# 100 * weight > the sum of the plugins' weights * 100.
PLUGIN_WEIGHTS = {
    "TaintToleration": 3,
    "NodeAffinity": 2,
    "PodTopologySpread": 2,
    "InterPodAffinity": 2,
    "NodeResourcesFit": 1,
    "NodeResourcesBalancedAllocation": 1,
    "ImageLocality": 1,
    # These score only behind feature gates, in some releases.
    "VolumeBinding": 1,
    "DynamicResources": 1,
}
"""kube-scheduler's default weights, 1.26 to 1.35; a plugin of a release that is not here has weight 1 or 2."""
WEIGHT = 100
"""More than any sum of default weights (14), with room for administrators who raise some."""

assert sum(PLUGIN_WEIGHTS.values()) < WEIGHT

COMMENT = f"""\
For kube-scheduler's --config, beside the hami scheduler of the same pod.
weight {WEIGHT}: our 10 for the chosen node is worth 10 x {WEIGHT} x 10 = {10 * WEIGHT * 10} points.
All default score plugins together give at most {100 * sum(PLUGIN_WEIGHTS.values())},
so the node where the slice is held always wins."""


def scheduler_configuration(site: Site) -> Manifest:
    """The whole file; its kubeconfig is the default, in-cluster one."""
    return {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": {
            "leaderElect": site.leader_elect,
            "resourceName": site.scheduler_name,
            "resourceNamespace": site.namespace,
        },
        "profiles": [{"schedulerName": site.scheduler_name}],
        "extenders": [_for_cards(site), *([_for_hosts(site)] if site.cpu_pods else [])],
    }


def _for_cards(site: Site) -> Manifest:
    return {
        **_called(site),
        "filterVerb": "filter",
        "prioritizeVerb": "prioritize",
        "bindVerb": "bind",
        "preemptVerb": "preempt",
        # Without us there is nobody who knows the cards: better a pod that waits than one that is bound blindly.
        "ignorable": False,
        "managedResources": [{"name": name, "ignoredByScheduler": True} for name in site.resources],
    }


def _for_hosts(site: Site) -> Manifest:
    """Asked about every pod of the profile, since no resource tells those without cards; a preference, no more."""
    return {**_called(site), "prioritizeVerb": "shelter", "ignorable": True, "httpTimeout": "5s"}


def _called(site: Site) -> Manifest:
    url = urlsplit(site.extender_url)
    extender: Manifest = {
        "urlPrefix": site.extender_url,
        "weight": site.extender_weight or WEIGHT,
        "enableHTTPS": url.scheme == "https",
        "httpTimeout": f"{site.extender_timeout_seconds}s",
        "nodeCacheCapable": True,
    }
    if url.scheme == "https":
        extender["tlsConfig"] = {
            "insecure": False,
            "serverName": url.hostname,
            "caFile": site.extender_ca_file,
            "certFile": site.extender_cert_file,
            "keyFile": site.extender_key_file,
        }
    return extender
