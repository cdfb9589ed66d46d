"""Starts everything the demo shows, in order, and ends it again.

Real parts, and simulated ones where there is no hardware. Blocks; each step says
what it is before it begins.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from hami.cli.demo.scene import Scene, decode, observe
from hami.cli.demo.simulated import SimulatedNodes
from hami.config.files import text
from hami.config.schema import DeviceConfig
from hami.config.yamls import documents
from hami.lab import Lab, NodeSpec, obstacle
from hami.lab.agents import start_agent
from hami.lab.front import Front, own_address
from hami.lab.images import TOOLS
from hami.lab.product import Product
from hami.model.errors import Malformed
from hami.sim.cards import Bench, parse
from hami.sim.nodes import Shape
from hami.vendors import table

NODE = "gpu-node"
COUNT = "nvidia.com/gpu"
RACK = "cards: [{model: L40S}, {model: L40S}]"
SIMULATED = (
    ("sim-h100", Shape(cards=8, mem_mib=81559, model="NVIDIA H100 80GB HBM3")),
    ("sim-a100", Shape(cards=4, mem_mib=40960, model="NVIDIA A100-SXM4-40GB")),
    ("sim-v100", Shape(cards=4, mem_mib=32768, model="NVIDIA-Tesla V100-PCIE-32GB")),
)
STAND_IN = Shape(cards=2, mem_mib=46068, model="NVIDIA L40S")
"""The real node's cards, for a machine where no kubelet can run."""

Say = Callable[[str], None]


class Stage:
    """A cluster with the product on it. `real_node` is False where a kubelet cannot run; `obstacle` says why."""

    def __init__(self, examples: Path, say: Say) -> None:
        self.submissions = tuple(read_examples(examples))
        self.obstacle = obstacle()
        self.vendors = table.load(DeviceConfig())
        self._say = say
        self._parts = ExitStack()
        self.lab = Lab(nodes=[NodeSpec(NODE, labels={"gpu": "on"})] if self.real_node else 0)

    @property
    def real_node(self) -> bool:
        return self.obstacle is None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._parts.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self._parts.close()

    def _start(self) -> None:
        """1. Kubernetes, 2. scheduler and webhook, 3. the node's agent, 4. simulated nodes."""
        self._say("Kubernetes: etcd, API server, controllers" + (", kubelet, containerd" if self.real_node else ""))
        self._parts.enter_context(self.lab)
        self._say("hami scheduler, its webhook, and a stock kube-scheduler that asks it")
        self._product = product = Product(self.lab)
        product.start()
        product.install()
        if self.real_node:
            self._say(f"hami agent on {NODE}, with two simulated L40S cards")
            bench = Bench(self.lab.folder / "cards", parse(RACK))
            account = self.lab.identity(product.site.agent_user)
            self.agent_port = self.lab.take_port()
            start_agent(self.lab, self.lab.nodes[NODE], bench.environment, identity=account, port=self.agent_port)
            self.lab.wait_for(f"{NODE} to offer its cards", self._offered)  # a pod before that is refused once
        self._say(f"{len(self.simulated)} simulated nodes")
        self._parts.enter_context(SimulatedNodes(product.agents.kubeconfig, dict(self.simulated)))

    def _offered(self) -> bool:
        return int(self.lab.get("node", NODE)["status"]["allocatable"].get(COUNT, 0)) > 0

    def open(self) -> bool:
        """Let people ask the scheduler through the API server; False where only loopback could be pointed to."""
        address = self.lab.nodes[NODE].address if self.real_node else own_address()
        if address is None:
            return False
        self._parts.enter_context(Front(self._product, address))
        return True

    @property
    def simulated(self) -> tuple[tuple[str, Shape], ...]:
        return SIMULATED if self.real_node else ((NODE, STAND_IN), *SIMULATED)

    def submit(self, text: str) -> None:
        self.lab.apply(text)

    def scene(self) -> Scene:
        return observe(*decode(self.lab.kubectl("get", "nodes,pods", "-o", "json")), self.vendors)


def read_examples(folder: Path) -> Iterator[tuple[str, str]]:
    """File name and text of each example, in order; images replaced, since no registry can be reached.

    Raises `Malformed` naming the file that cannot be used.
    """
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise Malformed("--examples", str(folder), "a folder with *.yaml files in it")
    for file in files:
        objects = documents(text(file), str(file))
        if not all(isinstance(one, dict) and isinstance(one.get("spec", {}), dict) for one in objects):
            raise Malformed("--examples", str(file), "a file of nothing but objects of Kubernetes")
        yield file.name, yaml.safe_dump_all([with_image(one, TOOLS) for one in objects])


def with_image(manifest: dict[str, Any], image: str) -> dict[str, Any]:
    """A copy of a pod, or of a controller with a pod template, whose containers all use `image`."""
    if manifest.get("kind") == "Pod":
        spec = manifest.get("spec", {})
        lists = {
            key: [{**one, "image": image} for one in spec[key]]
            for key in ("initContainers", "containers")
            if key in spec
        }
        return {**manifest, "spec": {**spec, **lists}}
    template = manifest.get("spec", {}).get("template")
    if template is None:
        return manifest
    replaced = with_image({"kind": "Pod", **template}, image)
    del replaced["kind"]
    return {**manifest, "spec": {**manifest["spec"], "template": replaced}}
