"""What `hami agent` can be told. The command line turns each field into an option of the same name.

Times are seconds. Nothing here reads files or the environment; paths are as this
process sees them, and mounts it hands out are on the host.
"""

from typing import Literal

from msgspec import Struct

from hami.config import bounds
from hami.config.address import address

Strategy = Literal["envvar", "volume-mounts", "cdi-annotations", "cdi-cri"]


class Settings(Struct, frozen=True, kw_only=True):
    """Start-up settings of one node's agent."""

    node_name: str
    """The Node object this process stands for, usually from NODE_NAME."""
    kubeconfig: str | None = None
    """Unset: in-cluster credentials, else the usual kubeconfig search."""
    context: str | None = None
    """Of the kubeconfig. Unset: its current one."""

    device_config_file: str | None = None
    """device-config.yaml, shared with the scheduler. Unset: every default."""
    node_config_file: str | None = None
    """config.json with per-node overrides."""
    nvml_library: str | None = None
    """Path of libnvidia-ml.so.1. Unset: below the driver root, else where the loader finds it."""
    scan_interval: float = 30.0
    """How often cards are looked for anew."""
    recovery_quiet: float = 60.0
    """How long a card must be without another Xid, or the disk for grants writable, before pods may come again."""
    register_interval: float = 30.0
    """How often the scheduler is told that this agent lives; its own limit is 150 s by default."""
    sysfs: str = "/sys"
    """Where the cards' NUMA nodes are read."""

    device_plugin_dir: str = "/var/lib/kubelet/device-plugins"
    """kubelet's folder of device plugins: its socket and its checkpoint are there, and ours is made there."""
    pod_resources_socket: str = "/var/lib/kubelet/pod-resources/kubelet.sock"
    """Where kubelet tells which container has which devices."""
    kubelet_poll: float = 0.25
    """How often kubelet's socket is looked at. A kubelet that restarts refuses GPU pods until we have registered."""

    driver_root: str = "/"
    """Root of the driver installation as this process sees it."""
    host_driver_root: str = "/"
    """The same on the host; the driver's files that a CDI spec names are below it."""
    dev_root: str = "/"
    """Root on the host below which ``dev/nvidia0`` is; its paths go to kubelet."""
    hook_path: str = "/usr/local"
    """Folder whose ``vgpu`` holds the library and the policies; the same path on the host and for this process."""
    ledger_dir: str = ""
    """Folder for the containers' ledgers, the same path on the host and for this process. On a tmpfs, as /run/hami, no
    program of a slice waits for a disk that stands still. Empty: beside the policies, below --hook-path."""
    library_file: str | None = None
    """The libvgpu.so to hand out. Unset: the one that is built into this installation."""
    state_dir: str = "/var/lib/hami"
    """Where the checkpoint is kept. Must outlive a restart of this process."""
    cdi_dir: str = "/var/run/cdi"
    """Where runtimes look for CDI specs; ours is written there with a cdi-* strategy."""

    device_list_strategy: tuple[Strategy, ...] = ("envvar",)
    """How a container is told its cards; may be given several times. cdi-cri needs nothing of NVIDIA's on the node."""
    cdi_annotation_prefix: str = "cdi.k8s.io/"
    """Of the annotation that names a container's cards, with cdi-annotations."""
    pass_device_specs: bool = False
    """Hand out /dev/nvidia* ourselves, for runtimes without NVIDIA's hook."""
    gdrcopy_enabled: bool = False
    """Hand out GDRCopy's devices, too, by NVIDIA's runtime."""
    gds_enabled: bool = False
    """Likewise GPUDirect Storage's."""
    mofed_enabled: bool = False
    """Likewise Mellanox's (InfiniBand)."""

    broker: bool = True
    """Whether the library in each container registers with us: limits change live, usage is seen, turns are taken."""
    unregistered: Literal["report", "stop"] = "report"
    """What happens to a process of a sliced container that uses its card and has not registered."""
    exceeded: Literal["report", "stop"] = "report"
    """What happens to a registered process with memory past its slice that its library did not give it."""
    monitor_mirror: bool = False
    """Whether what containers use is also written where HAMi's vGPUmonitor looks, below the hook path, in its form."""
    strict: bool = False
    """Deny driver entry points and private tables that the library does not know; else they pass, counted."""

    scheduler_names: tuple[str, ...] = ("hami-scheduler",)
    """Pods of other schedulers get no card, whatever their annotations say. Empty trusts every scheduler."""
    allocate_wait: float = 5.0
    """How long one Allocate may wait for the API server and kubelet's list; no other pod is admitted meanwhile."""
    verify_wait: float = 20.0
    """The same for PreStartContainer; kubelet itself gives up after 30."""
    allocate_timeout: float = 300.0
    """A bound pod that kubelet has not asked cards for within this time is failed and its slice released."""
    conflict_interval: float = 10.0
    """How often other device plugins that offer our cards are looked for."""

    niceness: int = -10
    """The process's nice value: kubelet waits for it. Below 0 it needs CAP_SYS_NICE; 0 leaves it as it is."""
    metrics_bind_address: str = "0.0.0.0:9394"
    """Plain HTTP: /metrics, /healthz, /readyz. Empty turns it off."""
    kube_qps: float | None = None
    """Calls a second to the API server. Unset: as many as there are."""
    event_qps: float = 5.0
    """Events a second; five times as many at once."""
    log_format: Literal["text", "json"] = "json"
    """Of the log on stderr: text for people."""
    log_level: str = "info"
    """debug, info, warning or error."""

    def __post_init__(self) -> None:
        """Raises Malformed, which names the option: before anything is done with any of them."""
        bounds.require(self, "node_name", bool(self.node_name.strip()), "the name of this node's Node object")
        absolute = "the absolute path of a folder, the same on the host"
        bounds.require(self, "hook_path", self.hook_path.startswith("/"), absolute)
        ledgers = self.ledger_dir
        bounds.require(self, "ledger_dir", not ledgers or ledgers.rstrip("/").startswith("/"), absolute)
        bounds.seconds(self, TIMES, none=False)
        bounds.rates(self, ("kube_qps", "event_qps"))
        bounds.require(self, "niceness", -20 <= self.niceness <= 19, "-20 to 19")
        bounds.level(self)
        if self.metrics_bind_address:
            address("--metrics-bind-address", self.metrics_bind_address)


TIMES = (
    "scan_interval", "recovery_quiet", "register_interval", "kubelet_poll", "allocate_wait", "verify_wait",
    "allocate_timeout", "conflict_interval",
)  # fmt: skip
