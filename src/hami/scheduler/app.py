"""`hami scheduler`: the parts put together in one event loop. Wiring only; nothing is decided here."""

import asyncio
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop
from aiohttp import web

from hami.config.address import address
from hami.config.files import text
from hami.config.load import device_config
from hami.config.schema import DeviceConfig
from hami.kube.client import Kube
from hami.kube.events import Recorder
from hami.kube.lease import Elector
from hami.ledger.cluster import Ledger
from hami.model.ask import NodePolicy, Policies
from hami.model.errors import Malformed
from hami.model.ids import PodUid
from hami.observe import log as logs
from hami.observe import memory
from hami.observe.metrics import registry
from hami.observe.running import allow_descriptors, until_stopped
from hami.scheduler.api.access import Access
from hami.scheduler.api.advise import Adviser
from hami.scheduler.api.desk import FIT, LIMIT, Desk
from hami.scheduler.edge.connections import BoundedServer, limits_of
from hami.scheduler.edge.listener import Listener
from hami.scheduler.edge.routes import MIB, extender_routes, open_routes
from hami.scheduler.edge.serve import Edge, health_pages
from hami.scheduler.edge.tls import Certificate
from hami.scheduler.engine import Engine
from hami.scheduler.evict import Evictor
from hami.scheduler.gate import Gate
from hami.scheduler.held.narrate import Narrator
from hami.scheduler.held.waiting import Waiting
from hami.scheduler.loop.between import Between
from hami.scheduler.loop.unhurried import unhurried
from hami.scheduler.meters import Meters
from hami.scheduler.metrics import MetricsPage
from hami.scheduler.requeue import Waker
from hami.scheduler.settings import Settings
from hami.scheduler.verbs import webhook
from hami.scheduler.verbs.bind import Binder
from hami.scheduler.watch.handshake import Handshakes
from hami.scheduler.watch.hosts import Hosts
from hami.scheduler.watch.replicas import Leadership, LeaseWatcher, elect
from hami.scheduler.watch.sync import NodeDoor, PodDoor, QuotaDoor
from hami.scheduler.watch.watches import Watches
from hami.vendors.policies import CARD_POLICIES
from hami.vendors.table import load
from hami.wire.annotations import words
from hami.wire.objects import Pod

HOUSEKEEPING = 1.0
"""Seconds between looks at what only time changes."""
DESCRIPTORS = 512
"""Beside those of clients: files, the API server, metrics."""
JUDGING = 1.0
"""Seconds between looks at whether the policy `pack` needs new prices."""


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises `HamiError` for settings that cannot be used."""
    logs.setup(settings.log_format, settings.log_level)
    check(settings)
    allow_descriptors(2 * settings.max_connections + DESCRIPTORS)
    # libuv's loop: TLS and sockets cost a filter a third less than with asyncio's own (docs/adr/0002).
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(settings))


async def main(settings: Settings, ready: Callable[[int], None] | None = None) -> None:
    """One replica's life. `ready` is told the port once it is bound."""
    async with await Kube.connect(settings.kubeconfig, settings.context, settings.kube_qps) as kube:
        await Scheduler(settings, kube).run(ready)


def check(settings: Settings) -> None:
    """Refuse settings that would be less safe than they look."""
    if settings.extender_auth == "mtls" and not (settings.cert_file and settings.extender_client_ca):
        raise Malformed(
            "--extender-auth",
            settings.extender_auth,
            "needs --cert-file, --key-file and --extender-client-ca, so that kube-scheduler can prove itself; "
            "or turn it off by name: --extender-auth=none",
        )
    if bool(settings.cert_file) != bool(settings.key_file):
        raise Malformed("--cert-file", settings.cert_file, "--cert-file and --key-file go together")
    for flag in ("http_bind", "metrics_bind_address"):
        text = getattr(settings, flag)
        if text or flag == "http_bind":
            address(f"--{flag.replace('_', '-')}", text)
    if not settings.retry_period < settings.renew_deadline < settings.lease_duration:
        raise Malformed("--renew-deadline", settings.renew_deadline, "between --retry-period and --lease-duration")
    most = settings.extender_timeout - settings.bind_timeout
    if settings.gang_timeout > most:
        raise Malformed(
            "--gang-timeout",
            settings.gang_timeout,
            f"at most {most:g}: with --bind-timeout it must end before kube-scheduler gives the call up, after"
            f" --extender-timeout ({settings.extender_timeout:g} s), the httpTimeout of its configuration",
        )
    unknown = [word for word in words(settings.gpu_scheduler_policy) if word not in CARD_POLICIES]
    if unknown:
        raise Malformed("--gpu-scheduler-policy", unknown[0], f"words of {', '.join(CARD_POLICIES)}")


class Scheduler:
    """One replica with all its parts."""

    def __init__(self, settings: Settings, kube: Kube) -> None:
        self.settings = settings
        self.kube = kube
        self.clock = time.monotonic
        self.vendors = load(read_config(settings.device_config_file))
        self.gate = Gate()
        self.recorder = Recorder(
            kube, settings.scheduler_name, socket.gethostname(), qps=settings.event_qps, burst=settings.event_qps * 5
        )
        self.engine = Engine(
            ledger=Ledger(),
            vendors=self.vendors,
            policies=Policies(
                node=NodePolicy(settings.node_scheduler_policy), card=words(settings.gpu_scheduler_policy)
            ),
            gate=self.gate,
            waiting=Waiting(),
            meters=Meters(registry()),
            narrator=Narrator(self.recorder),
            clock=self.clock,
            hold=settings.hold_timeout,
            gang_timeout=settings.gang_timeout,
        )
        self.binder = Binder(self.engine, kube, time.time, bind_timeout(settings))
        self.waker = Waker(self.engine, kube)
        self.handshakes = Handshakes(settings.handshake_timeout, self.clock)
        self.hosts = Hosts(self.engine.ledger) if settings.node_scheduler_policy == "pack" else None
        self.nodes = NodeDoor(
            self.engine.ledger,
            self.vendors,
            self.handshakes,
            self.gate,
            self.waker.freed,
            turned=self.tell_of_node,
            seen=self.hosts.node if self.hosts else lambda _node: None,
            gone=self.hosts.node_gone if self.hosts else lambda _name: None,
        )
        self.pods = PodDoor(
            self.engine.ledger,
            self.vendors,
            self.engine.waiting,
            self.gate,
            self.waker.freed,
            eased=self.waker.eased,
            seen=self.see_pod,
            gone=self.pod_gone,
            began=self.pods_begin,
        )
        self.engine.gangs.call = self.waker.call
        self.gate.opened = lambda: self.engine.gangs.resume(self.engine.node_names())
        self.evictor = Evictor(self.engine, kube, self.engine.narrator.preempted)
        self.quotas = QuotaDoor(self.engine.ledger, self.vendors, self.waker.eased)
        self.watches = Watches(kube, self.nodes, self.pods, self.gate, self.quotas)
        self.between = Between(self.engine.ledger)
        self.leadership = Leadership(self.gate, self.watches.rebuild)

    def see_pod(self, pod: Pod) -> None:
        self.engine.see(pod)
        if self.hosts:
            self.hosts.pod(pod)

    def pod_gone(self, uid: PodUid) -> None:
        self.engine.gangs.gone(uid)
        self.engine.nominations.drop(uid)
        if self.hosts:
            self.hosts.gone(uid)

    def pods_begin(self) -> None:
        self.engine.gangs.begin()
        if self.hosts:
            self.hosts.begin()

    async def run(self, ready: Callable[[int], None] | None = None) -> None:
        """1. serve (not ready), 2. follow the API server, 3. lead or wait to, 4. until told to stop."""
        logs.started("scheduler", address=self.settings.http_bind)
        certificate = self.certificate()
        runners = [await self.listen(certificate.context if certificate else None, ready), await self.listen_metrics()]
        self.between.begin()
        try:
            duties: list[Awaitable[None]] = [
                self.watches.run(),
                self.lead(),
                self.waker.run(),
                self.evictor.run(),
                self.recorder.run(),
                self.keep_house(),
                Adviser(self.engine).run(),
            ]
            if self.hosts:
                duties.append(self.judge())
            if certificate:
                duties.append(certificate.follow())
            await until_stopped(duties)
        finally:
            for runner in runners:
                if runner is not None:
                    await runner.cleanup()
            await self.recorder.drain()
            self.between.end()

    def certificate(self) -> Certificate | None:
        """Raises `Malformed` for files that cannot be used."""
        settings = self.settings
        if not settings.cert_file or not settings.key_file:
            return None
        try:
            return Certificate(settings.cert_file, settings.key_file, settings.extender_client_ca)
        except (OSError, ssl.SSLError) as fault:
            raise Malformed("--cert-file", settings.cert_file, f"a certificate with its key and CA: {fault}") from fault

    async def listen(self, context: ssl.SSLContext | None, ready: Callable[[int], None] | None) -> Listener:
        """Extender, webhook and health on one port."""
        settings = self.settings
        asked = webhook.WebhookSettings(
            scheduler_name=settings.scheduler_name,
            force_overwrite_default_scheduler=settings.force_overwrite_default_scheduler,
        )
        routes = {
            **extender_routes(self.engine, self.binder, settings.max_body_mib * MIB),
            **open_routes(
                lambda body: webhook.review(body, asked, self.vendors, self.engine.ledger.quotas.budgets),
                settings.max_review_mib * MIB,
            ),
        }
        certificates = settings.api_client_certificates == "kubernetes-users"
        desk = Desk(self.engine, self.kube, Access(self.kube), certificates=certificates)
        edge = Edge(
            routes,
            health_pages(self.gate),
            self.engine.meters,
            clients=frozenset(settings.extender_clients) if settings.extender_auth == "mtls" else None,
            body_timeout=settings.body_timeout,
            calls=desk.calls,
            answered=self.between.answered,
        )
        accepted = self.engine.meters.connections.labels("main").inc
        most = settings.max_connections
        handshakes = self.engine.meters.handshakes
        listener = Listener(
            BoundedServer(edge, limits_of(routes, {FIT: LIMIT}), most, accepted),
            context,
            most,
            lambda result: handshakes.labels(result).inc(),
        )
        await listener.open(*address("--http-bind", settings.http_bind))
        if ready:
            ready(listener.port)
        return listener

    async def listen_metrics(self) -> web.ServerRunner | None:
        """Metrics and health without TLS, for scrapers and kubelet's probes."""
        if not self.settings.metrics_bind_address:
            return None
        page = MetricsPage(self.engine, self.gate, self.watches.contacts)
        edge = Edge(
            {}, {**health_pages(self.gate), "/metrics": page}, self.engine.meters, clients=None, body_timeout=1.0
        )
        accepted = self.engine.meters.connections.labels("metrics").inc
        runner = web.ServerRunner(BoundedServer(edge, limits_of({}), 64, accepted), handle_signals=False)
        await runner.setup()
        await web.TCPSite(runner, *address("--metrics-bind-address", self.settings.metrics_bind_address)).start()
        return runner

    async def lead(self) -> None:
        """Decide now, or when the Lease says so."""
        settings = self.settings
        identity = settings.identity or socket.gethostname()
        name, namespace = settings.leader_elect_resource_name, settings.leader_elect_resource_namespace
        if settings.leader_elect == "none":
            self.gate.lead()
        elif settings.leader_elect == "lease":
            elector = Elector(
                self.kube,
                namespace,
                name,
                identity,
                settings.lease_duration,
                settings.renew_deadline,
                settings.retry_period,
            )
            await elect(elector, self.leadership)
        else:
            watcher = LeaseWatcher(
                self.kube, namespace, name, identity, self.leadership, renew_deadline=settings.renew_deadline
            )
            await watcher.run()

    def tell_of_node(self, node: str, problem: str | None) -> None:
        """One replica tells, and only of what happens while it looks: a start is no news."""
        if self.gate.closed is None:
            self.engine.narrator.node_turned(node, problem)

    async def keep_house(self) -> None:
        """What only time changes: holds that ran out, agents gone silent, pods long gone; and how late we are."""
        due = self.clock() + HOUSEKEEPING
        while True:
            await asyncio.sleep(max(0.0, due - self.clock()))
            now = self.clock()
            self.engine.meters.loop_lag.set(max(0.0, now - due))
            due = now + HOUSEKEEPING
            for reservation in self.engine.ledger.expire(now):
                self.engine.meters.expired.labels(reservation.state.value).inc()
                self.waker.freed(reservation.plan.node)
                if self.engine.ledger.quotas.limited(reservation.plan.pod.namespace):
                    self.waker.eased(reservation.plan.pod.namespace)
            await self.binder.settle_overdue()
            self.nodes.judge_again()
            self.engine.waiting.forget_old(now)
            if self.watches.synced and self.between.settle():
                self.engine.ledger.make_ready(memory.spare())
            self.between.idle()

    async def judge(self) -> None:
        """Make the prices of the policy `pack` anew where the demand has moved, so that no decision waits for it. A
        follower does so too: its first decision comes when the other replica is gone and everybody waits."""
        self.engine.ledger.judge_later()
        while True:
            await asyncio.sleep(JUDGING)
            if self.watches.synced:
                await unhurried(self.engine.ledger.judge_anew())


def bind_timeout(settings: Settings) -> float:
    """Seconds. A Binding that a replica sends at the end of its term must have ended before another's begins."""
    if settings.leader_elect == "none":
        return settings.bind_timeout
    return min(settings.bind_timeout, settings.lease_duration - settings.renew_deadline)


def read_config(file: str | None) -> DeviceConfig:
    """device-config.yaml, or every default. Raises `Malformed`."""
    if file is None:
        return DeviceConfig()
    return device_config(text(Path(file)), file)
