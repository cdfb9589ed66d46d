"""`hami agent`: the parts put together in one event loop. Wiring only; nothing is decided here."""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Literal

import uvloop
from aiohttp import web

from hami.agent import cdi, library
from hami.agent.alone import alone
from hami.agent.bound import AgentPod, BoundPods
from hami.agent.broker import usage
from hami.agent.broker.look import Look
from hami.agent.broker.mirror import Mirror
from hami.agent.broker.server import Broker
from hami.agent.broker.tenants import of_seats
from hami.agent.cards import xids
from hami.agent.cards.health import HEALTHY, XIDS
from hami.agent.cards.health import Watch as HealthWatch
from hami.agent.cards.inventory import Inventory
from hami.agent.cards.nodeconfig import NodeConfig
from hami.agent.cards.scout import Scout
from hami.agent.cluster.publish import Publisher
from hami.agent.cluster.register import Registrar
from hami.agent.endpoint import pages, serve
from hami.agent.grant import Host
from hami.agent.grants import recover, timeout
from hami.agent.grants.allocate import Allocator, Parts
from hami.agent.grants.checkpoint import Checkpoint
from hami.agent.grants.house import House
from hami.agent.grants.objection import Rules
from hami.agent.grants.policy import Folders
from hami.agent.grants.seats import Seats
from hami.agent.grants.verify import Verifier
from hami.agent.kubelet.podresources import KubeletFile, PodResources
from hami.agent.meters import Meters
from hami.agent.plugin.conflict import Sockets, Watch
from hami.agent.plugin.registration import Registration
from hami.agent.plugin.service import Plugin
from hami.agent.priority import take_precedence
from hami.agent.settings import Settings
from hami.agent.storage import Storage, allocations, checkpoint, written
from hami.config.address import address
from hami.kube import paths
from hami.kube.client import Kube
from hami.kube.events import Recorder, of_node
from hami.kube.reflector import Added, Broken, Deleted, Event, Modified, Synced
from hami.kube.watch import follow
from hami.model.errors import HamiError
from hami.model.ids import PodUid
from hami.observe import log as logs
from hami.observe.exposition import Sheet
from hami.observe.health import Health
from hami.observe.metrics import page
from hami.observe.running import until_stopped
from hami.vendors.nvidia import Nvidia, files
from hami.vendors.nvidia.driver import Driver, find_library
from hami.vendors.nvidia.worker import Worker
from hami.wire.objects import Node

log = logging.getLogger(__name__)
CARDS, DISK, KUBELET, PODS, REGISTERED = "cards", "disk", "kubelet", "pods", "registered"


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises `HamiError` for settings that cannot be used."""
    logs.setup(settings.log_format, settings.log_level)
    if settings.niceness:
        take_precedence(settings.niceness)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(settings))


async def main(settings: Settings, ready: Callable[[int], None] | None = None) -> None:
    """One agent's life. `ready` is told the port of the metrics once it is bound."""
    async with (
        alone(Path(settings.state_dir)),
        await Kube.connect(settings.kubeconfig, settings.context, settings.kube_qps) as kube,
    ):
        await Agent(settings, kube).run(ready)


class Agent:
    """One node's agent with all its parts."""

    def __init__(self, settings: Settings, kube: Kube) -> None:
        self.settings = settings
        self.kube = kube
        self.config = NodeConfig(
            settings.node_name, _path(settings.device_config_file), _path(settings.node_config_file)
        )
        self.resource = self.config.rules.nvidia.resource_count_name
        self.meters = Meters()
        self.health = Health((CARDS, DISK, REGISTERED, PODS, KUBELET))
        self.recorder = Recorder(
            kube, "hami-agent", settings.node_name, qps=settings.event_qps, burst=settings.event_qps * 5
        )
        self.inventory = Inventory()
        self.nvml = Driver(_path(settings.nvml_library) or find_library(Path(settings.driver_root)))
        self.workers = Worker("cards"), Worker("card events"), Worker("processes"), Worker("disks")
        vendor = self.vendor()
        self.pods = BoundPods(settings.node_name, vendor)
        self.publisher = Publisher(kube, vendor, settings.node_name, self.recorder)
        self.pod_resources = PodResources(settings.pod_resources_socket, self.resource)
        self.storage = Storage(
            written(settings),
            self.workers[3],
            self.inventory.withhold,
            self.tell,
            refused=self._distrust,
            quiet=settings.recovery_quiet,
        )
        self.parts = self._parts()
        self.house = House(self.parts)
        self.pods.on_change = self.house.changed
        self.verifier = Verifier(self.parts)
        self.plugin = Plugin(
            self.inventory,
            Allocator(self.parts),
            self.verifier,
            self.meters,
            topology=lambda: self.config.rules.nvidia.enable_numa_topology,
        )
        self.registration = Registration(
            self.plugin, settings.device_plugin_dir, self.resource, settings.kubelet_poll, self._kubelet_state
        )
        self.conflicts = Watch(
            Sockets(settings.device_plugin_dir, self.registration.endpoint),
            self.inventory.cards,
            self._allocatable,
            lambda reason, message: self.tell("Warning", reason, message),
            self.registration.claim,
            interval=settings.conflict_interval,
        )
        self.scout = Scout(
            self.nvml,
            self.workers[0],
            self.config,
            self.inventory,
            sysfs=Path(settings.sysfs),
            interval=settings.scan_interval,
            tell=self.tell,
        )
        self.card_health = HealthWatch(
            self.nvml,
            self.workers[1],
            self.workers[0],
            self.inventory,
            xids.rules(os.environ),
            quiet=settings.recovery_quiet,
            probe_interval=min(10.0, settings.recovery_quiet / 2),
            tell=self.tell,
        )
        self.registrar = Registrar(
            kube,
            settings.node_name,
            self.inventory,
            annotation=vendor.register_annotation,
            links_annotation=vendor.links_annotation,
            period=settings.register_interval,
        )
        self.card_metrics = Sheet((HEALTHY, XIDS))
        folders = self.parts.folders
        self.broker = Broker(lambda: of_seats(self.parts.seats), lambda key: folders.root / key)
        self.parts.seats.on_change = self.broker.kick
        self.parts.seats.on_unkept = self.storage.suspect
        self.look = Look(
            self.broker,
            self.nvml,
            self.workers[2],
            tell=lambda pod, reason, message: self.recorder.record(pod, "Warning", reason, message),
            action=settings.unregistered,
            exceeded=settings.exceeded,
        )
        self.usage_metrics = Sheet(usage.FAMILIES)

    def _parts(self) -> Parts:
        settings = self.settings
        dev = Path(settings.dev_root) / "dev"
        return Parts(
            pods=self.pods,
            seats=Seats(Checkpoint(checkpoint(settings))),
            kubelet=self.pod_resources,
            kept=KubeletFile(settings.device_plugin_dir, self.resource).read,
            fetch=self._fetch,
            cards=self.inventory,
            host=Host(
                settings=settings,
                read_config=lambda: self.config.rules.nvidia,
                library=library.install_if_room(settings),
                minor=self.inventory.minor,
                has_node=lambda name: (dev / name).exists(),
            ),
            vendor=self.vendor,
            rules=Rules(settings.scheduler_names, guard_environment="envvar" in settings.device_list_strategy),
            folders=Folders(allocations(settings), _path(settings.ledger_dir)),
            outcome=self.publisher,
            resource=self.resource,
            unwritten=self.storage.suspect,
        )

    def _distrust(self) -> None:
        """What kubelet was sent before it hears of the disk is not granted either, unless it is on it."""
        self.parts.seats.distrust()

    async def run(self, ready: Callable[[int], None] | None = None) -> None:
        """1. take over what was granted, 2. serve pages, 3. cards, pods, kubelet, 4. until told to stop."""
        settings = self.settings
        logs.started("agent", node=settings.node_name, resource=self.resource)
        recover.take_over(self.parts)
        runner = await self._serve_pages(ready)
        await self.storage.once()  # before anybody hears of cards that cannot be granted
        duties: list[Awaitable[None]] = [
            self.storage.run(),
            self.scout.run(),
            self.card_health.run(),
            self.registrar.run(),
            self._follow_pods(),
            self._serve_kubelet(),
            self.house.run(),
            self.parts.seats.keep(),
            self.publisher.run(),
            self.recorder.run(),
            self.conflicts.run(),
            timeout.watch(self.parts, settings.allocate_timeout),
        ]
        if any(strategy.startswith("cdi") for strategy in settings.device_list_strategy):
            duties.append(cdi.keep(self.inventory.changes(), self._cdi_spec, settings.cdi_dir))
        if settings.broker:
            duties += [self.broker.run(), self.look.run()]
        if settings.broker and settings.monitor_mirror:
            duties.append(Mirror(self.broker, self.look, Path(settings.hook_path) / "vgpu/containers").run())
        try:
            await until_stopped(duties)
        finally:
            await self.recorder_drained()
            await self.pod_resources.close()
            for worker in self.workers:
                worker.close()
            if runner is not None:
                await runner.cleanup()

    # the API server

    async def _follow_pods(self) -> None:
        await follow(self.kube, paths.pods(), AgentPod, self._own_pods(), self._pod_event)

    def _own_pods(self) -> dict[str, str]:
        return {"fieldSelector": f"spec.nodeName={self.settings.node_name}"}

    def _pod_event(self, event: Event[AgentPod]) -> None:
        match event:
            case Added(pod) | Modified(pod):
                self.pods.put(pod)
            case Deleted(uid=uid):
                self.pods.drop(PodUid(uid))
                self.publisher.forget(PodUid(uid))
            case Broken(metadata, problem):
                log.error("pod cannot be read", extra={"pod": f"{metadata.namespace}/{metadata.name}", "why": problem})
            case Synced():
                self.pods.complete()
                self.house.changed(PodUid(""))
                self.health.met(PODS)

    async def _fetch(self) -> tuple[Sequence[AgentPod], str]:
        """Every pod of this node, read from etcd and not from a watch cache."""
        found: list[AgentPod] = []
        asked: dict[str, str | int] = {**self._own_pods(), "limit": 500}
        while True:
            part = await self.kube.page(paths.pods(), AgentPod, asked)
            found += part.items
            if not part.next:
                return found, part.version
            asked["continue"] = part.next

    def tell(self, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """An event on our node."""
        self.recorder.record(of_node(self.settings.node_name), kind, reason, message)

    async def recorder_drained(self) -> None:
        writing = asyncio.ensure_future(self.recorder.run())
        await self.recorder.drain(1.0)
        writing.cancel()

    # kubelet

    async def _serve_kubelet(self) -> None:
        """Offer cards once there has been a look at them: kubelet takes an empty list for cards that are gone."""
        async for _ in self.inventory.changes():
            if self.inventory.scanned:
                break
        await self.registration.run()

    def _kubelet_state(self, registered: bool, why: str) -> None:
        self.meters.registered.set(int(registered))
        if registered:
            self.health.met(KUBELET)
        else:
            self.health.unmet(KUBELET, why)

    async def _allocatable(self) -> str | None:
        """The node's count of our resource; None while kubelet does not have our cards from us."""
        if not self.plugin.streams:
            return None
        try:
            node = await self.kube.get(paths.nodes(self.settings.node_name), Node)
        except HamiError:
            return None
        return node.status.allocatable.get(self.resource)

    def _cdi_spec(self) -> bytes | None:
        settings, host = self.settings, self.parts.host
        if not self.inventory.scanned:
            return None
        driver = files.find(Path(settings.driver_root), settings.host_driver_root)
        if driver is None:
            log.warning("containers get no driver: none is found", extra={"below": settings.driver_root})
        return cdi.spec(self.inventory.cards(), host.minor, host.has_node, settings.dev_root, driver)

    # pages

    async def _serve_pages(self, ready: Callable[[int], None] | None) -> web.AppRunner | None:
        if not self.settings.metrics_bind_address:
            return None
        host, port = address("--metrics-bind-address", self.settings.metrics_bind_address)
        runner, bound = await serve(pages(self.health, self._metrics, self._judge), host, port)
        if ready is not None:
            ready(bound)
        return runner

    def _judge(self) -> None:
        """Readiness as of now, of what keeps its own account."""
        for name, problem in (
            (CARDS, self.inventory.problem),
            (DISK, self.storage.problem),
            (REGISTERED, self.registrar.problem),
        ):
            if problem is None:
                self.health.met(name)
            else:
                self.health.unmet(name, problem)

    def _metrics(self) -> bytes:
        meters = self.meters
        meters.seats.set(len(self.parts.seats))
        meters.exchanged.set(self.verifier.exchanged)
        meters.stopped.set(self.verifier.stopped)
        meters.registrations.set(self.registration.registrations)
        meters.conflict.set(len(self.conflicts.rivals))
        meters.writable.set(int(self.storage.problem is None))
        meters.outcomes_waiting.set(self.publisher.waiting())
        self.card_metrics.put("cards", -1, self.card_health.samples(self.settings.node_name))
        if self.settings.broker:
            self.usage_metrics.put("usage", -1, usage.samples(self.broker, self.look, time.monotonic()))
        return page(meters.registry, (self.card_metrics, self.usage_metrics))

    def vendor(self) -> Nvidia:
        return Nvidia(self.config.rules.nvidia)


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None
