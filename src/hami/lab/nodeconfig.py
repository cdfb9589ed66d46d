"""The configuration files of a node's programs: containerd, CNI and kubelet.

Settings seen to work without CAP_SYS_RESOURCE, on cgroup v1 and v2, and without iptables.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hami.lab import images
from hami.lab.pki import KeyPair

CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
# Where agents write CDI specifications on a real node; both are the node's own here.
CDI_FOLDERS = ("/etc/cdi", "/var/run/cdi")


@dataclass(frozen=True)
class KubeletPlace:
    """Where a kubelet is reached and what it proves itself with. `serving` is signed by the cluster's authority."""

    folder: Path
    address: str
    port: int
    health_port: int
    cgroup: str
    serving: KeyPair


def containerd(folder: Path, programs: Mapping[str, Path], snapshotter: str) -> str:
    """containerd's TOML."""
    return f"""\
version = 3
root = "{folder}/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp"]

[grpc]
address = "{CONTAINERD_SOCKET}"

[ttrpc]
address = "{CONTAINERD_SOCKET}.ttrpc"

[plugins."io.containerd.internal.v1.opt"]
path = "{folder}/opt"

[plugins."io.containerd.cri.v1.images"]
snapshotter = "{snapshotter}"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{images.TOOLS}"

[plugins."io.containerd.cri.v1.runtime"]
enable_cdi = true
cdi_spec_dirs = [{", ".join(f'"{folder}"' for folder in CDI_FOLDERS)}]
# Without CAP_SYS_RESOURCE runc may not lower a score, and dies with "can't get final child's PID".
restrict_oom_score_adj = true
tolerate_missing_hugetlb_controller = true
disable_hugetlb_controller = true
netns_mounts_under_state_dir = true
ignore_image_defined_volumes = true

[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "{programs["lab-runc"]}"
SystemdCgroup = false

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{programs["bridge"].parent}"]
conf_dir = "{folder}/net.d"
"""


def network(folder: Path, bridge: str, subnet: str) -> dict[str, object]:
    """The CNI list: a bridge without masquerade, so no iptables; pods reach the host and each other."""
    addresses = {"type": "host-local", "dataDir": f"{folder}/addresses", "ranges": [[{"subnet": subnet}]]}
    plugin = {"type": "bridge", "bridge": bridge, "isGateway": False, "ipMasq": False, "ipam": addresses}
    return {"cniVersion": "1.0.0", "name": "hami-lab", "plugins": [plugin]}


def kubelet(place: KubeletPlace, overrides: Mapping[str, object]) -> dict[str, object]:
    """KubeletConfiguration; `overrides` win field by field."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": place.address,
        "port": place.port,
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": place.health_port,
        "tlsCertFile": str(place.serving.certificate),
        "tlsPrivateKeyFile": str(place.serving.key),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(place.serving.authority)},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": place.cgroup,
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "localStorageCapacityIsolation": False,
        # The machine's own fill level is not the lab's business.
        "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%"},
        "imageGCHighThresholdPercent": 100,
        "makeIPTablesUtilChains": False,
        "resolvConf": "",
        # Nothing answers there; without it every pod gets a warning event.
        "clusterDNS": ["10.96.0.10"],
        "clusterDomain": "cluster.local",
        "volumePluginDir": str(place.folder / "volume-plugins"),
        "nodeStatusUpdateFrequency": "5s",
        "serializeImagePulls": False,
        **overrides,
    }
