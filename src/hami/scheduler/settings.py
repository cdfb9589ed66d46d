"""What `hami scheduler` can be told, with HAMi's flag names where HAMi has the flag.

The command line turns each field into an option of the same name; times are
seconds, sizes MiB. Nothing here reads files or the environment.
"""

from typing import Literal

from msgspec import Struct

from hami.config import bounds

ExtenderAuth = Literal["mtls", "none"]
ApiCertificates = Literal["ignored", "kubernetes-users"]
LeaderElect = Literal["none", "lease", "follow"]
TIMES = (
    "lease_duration", "renew_deadline", "retry_period", "hold_timeout", "gang_timeout", "extender_timeout",
    "bind_timeout", "handshake_timeout", "body_timeout",
)  # fmt: skip
COUNTS = ("max_body_mib", "max_review_mib", "max_connections")


class Settings(Struct, frozen=True, kw_only=True):
    """Start-up settings of one scheduler replica."""

    kubeconfig: str | None = None
    """Unset: the pod's own account, else $KUBECONFIG and ~/.kube/config."""
    context: str | None = None
    """Of the kubeconfig. Unset: its current one."""

    http_bind: str = "0.0.0.0:8443"
    """Where extender, webhook and health are served; HTTPS when a certificate is given."""
    cert_file: str | None = None
    """Serving certificate, PEM. A renewed file is served without a restart."""
    key_file: str | None = None
    """Its key, PEM."""
    metrics_bind_address: str = "0.0.0.0:9395"
    """Plain HTTP: /metrics, /healthz, /readyz. Empty turns it off."""

    extender_auth: ExtenderAuth = "mtls"
    """mtls: /filter, /prioritize, /shelter, /bind and /preempt want kube-scheduler's client certificate.
    none: anybody who reaches the port may bind pods; only for a port nobody else reaches."""
    extender_client_ca: str | None = None
    """CA bundle that signs kube-scheduler's client certificate."""
    extender_clients: tuple[str, ...] = ("system:kube-scheduler",)
    """Common names or DNS names of certificates that may use the extender verbs."""

    api_client_certificates: ApiCertificates = "ignored"
    """kubernetes-users: to /api/v1, certificates signed by --extender-client-ca name Kubernetes users and groups.
    Only where that CA is the cluster's own. Tokens are accepted either way."""

    scheduler_name: str = "hami-scheduler"
    """Profile of kube-scheduler that serves our pods; also the source of our events."""
    node_scheduler_policy: Literal["binpack", "spread", "pack"] = "binpack"
    """Which node of those that fit, where a pod does not say; docs/guide/policies.md."""
    gpu_scheduler_policy: str = "spread"
    """The same for its cards: one word or several, as in mutex,binpack."""
    device_config_file: str | None = None
    """device-config.yaml, shared with the agents. Unset: every default."""

    leader_elect: LeaderElect = "none"
    """none: this replica always decides. lease: replicas elect one by a Lease of ours.
    follow: the replica decides whose own kube-scheduler holds kube-scheduler's Lease."""
    leader_elect_resource_name: str = "hami-scheduler-extender"
    """Name of that Lease."""
    leader_elect_resource_namespace: str = "hami-system"
    """Where it is."""
    identity: str = ""
    """Name of this replica in the Lease; empty is the host name. With follow, the host name
    that kube-scheduler puts before its ``_<uuid>``."""
    lease_duration: float = 15.0
    """How long others wait for a leader that has fallen silent."""
    renew_deadline: float = 10.0
    """How long a leader tries to renew before it steps down."""
    retry_period: float = 2.0
    """How long between two tries."""

    hold_timeout: float = 30.0
    """How long a slice chosen in /filter waits for its /bind before others may have it."""
    gang_timeout: float = 20.0
    """How long a member of a gang waits in /bind for the others."""
    extender_timeout: float = 30.0
    """How long kube-scheduler waits for an answer: the extender's httpTimeout in its configuration, as
    `hami scheduler config --extender-timeout` prints it. Gang and bind timeout together must not be longer."""
    bind_timeout: float = 10.0
    """How long one Binding request may take; its fate is looked up after that."""
    handshake_timeout: float = 150.0
    """A node whose agent has not reported for this long takes no new pods. 0 turns the check off."""

    kube_qps: float | None = None
    """Requests a second this process may send to the API server; unset is no limit."""
    event_qps: float = 10.0
    """Pod events a second. Events above it are dropped, never queued before bindings."""

    max_body_mib: int = 128
    """Largest extender request; kube-scheduler sends whole nodes when nodeCacheCapable is false."""
    max_review_mib: int = 8
    """Largest admission review; the API server takes objects up to 3 MiB."""
    body_timeout: float = 30.0
    """How long a client may take to send one request's body."""
    max_connections: int = 1024
    """Clients at once; with one more a stranger's is closed, that asked nothing for longest. A quarter as many
    may stand at the door with a TLS handshake that is not finished, 10 s each."""

    force_overwrite_default_scheduler: bool = True
    """Whether a pod that names default-scheduler counts as one that names none."""

    log_format: Literal["text", "json"] = "json"
    """Of the log on stderr: text for people."""
    log_level: str = "info"
    """debug, info, warning or error."""

    def __post_init__(self) -> None:
        """Raises Malformed, which names the option: before anything is done with any of them."""
        bounds.seconds(self, TIMES, none=True)
        bounds.rates(self, ("kube_qps", "event_qps"))
        for name in COUNTS:
            bounds.require(self, name, getattr(self, name) > 0, "1 or more")
        bounds.level(self)
