"""Where and under which names the product runs in a cluster: what all manifests are made from."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from hami.model.vendor import Vendor
from hami.wire.annotations import RECORD_KEYS

Manifest = dict[str, Any]


class Site(Struct, frozen=True, kw_only=True):
    """One installation."""

    vendors: Sequence[Vendor]
    namespace: str = "hami-system"
    name: str = "hami"
    """Prefix of the names of cluster-wide objects."""
    scheduler_name: str = "hami-scheduler"
    """`spec.schedulerName` of our pods; also kube-scheduler's profile and Lease."""
    extender_lease: str = "hami-scheduler-extender"
    scheduler_account: str = "hami-scheduler"
    agent_account: str = "hami-agent"
    record_writers: Sequence[str] = ()
    """Further users who may write records, by full name, for repairs by hand."""

    webhook_url: str | None = None
    """Where the API server reaches the webhook; None is the Service below."""
    webhook_service: str = "hami-scheduler"
    webhook_port: int = 443
    webhook_timeout_seconds: int = 10
    ca_bundle: str = ""
    """PEM of the authority that signed the webhook's certificate, base64; empty leaves it to an injector."""
    hide_cards: bool = False
    """`nvidia.overwriteEnv`: pods without cards get NVIDIA_VISIBLE_DEVICES=none, if the webhook is there to say so."""

    extender_url: str = "https://127.0.0.1:8443"
    """Where kube-scheduler, in the same pod, reaches the extender."""
    extender_ca_file: str = "/tls/ca.crt"
    extender_cert_file: str = "/tls/kube-scheduler/tls.crt"
    extender_key_file: str = "/tls/kube-scheduler/tls.key"
    extender_timeout_seconds: int = 30
    extender_weight: int | None = None
    """None is `extender.WEIGHT`."""
    leader_elect: bool = True
    cpu_pods: bool = False
    """kube-scheduler also asks where its pods without cards cost the cards least; for the node policy `pack`."""

    @property
    def resources(self) -> list[str]:
        """Every resource name of every vendor."""
        return [name for vendor in self.vendors for name in vendor.resources if name]

    @property
    def records(self) -> list[str]:
        """Every annotation that scheduler and agents believe."""
        lists = (key for one in self.vendors for key in (one.to_allocate_annotation, one.allocated_annotation))
        return list(dict.fromkeys((*RECORD_KEYS, *lists)))

    @property
    def scheduler_user(self) -> str:
        return f"system:serviceaccount:{self.namespace}:{self.scheduler_account}"

    @property
    def agent_user(self) -> str:
        return f"system:serviceaccount:{self.namespace}:{self.agent_account}"
