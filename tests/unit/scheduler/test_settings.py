"""Settings that would be less safe than they look are refused at the start."""

import pytest

from hami.model.ask import Ask, NodePolicy, PodRef, Policies
from hami.model.errors import Malformed
from hami.model.ids import PodUid
from hami.scheduler.app import bind_timeout, check, read_config
from hami.scheduler.settings import Settings


def test_mutual_tls_is_the_default_and_wants_its_files() -> None:
    with pytest.raises(Malformed, match="--extender-auth=none"):
        check(Settings())
    check(Settings(cert_file="c", key_file="k", extender_client_ca="ca"))
    check(Settings(extender_auth="none"))


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"cert_file": "c"}, "--cert-file"),
        ({"http_bind": "8443"}, "--http-bind"),
        ({"metrics_bind_address": "nowhere"}, "--metrics-bind-address"),
        ({"gpu_scheduler_policy": "spread,tightest"}, "tightest"),
        ({"renew_deadline": 15.0}, "--renew-deadline"),
        ({"gang_timeout": 20.5}, "--gang-timeout: 20.5 is not usable: at most 20:"),
        ({"gang_timeout": 50.0, "extender_timeout": 59.0}, "--gang-timeout"),
        ({"bind_timeout": 11.0}, "--gang-timeout"),
        ({"hold_timeout": -3.0}, "--hold-timeout: -3.0 is not usable: seconds, from 0"),
        ({"lease_duration": float("nan")}, "--lease-duration: nan"),
        ({"kube_qps": 0.0}, "--kube-qps"),
        ({"event_qps": -1.0}, "--event-qps"),
        ({"max_connections": 0}, "--max-connections: 0 is not usable: 1 or more"),
        ({"log_level": "nope"}, "--log-level: 'nope' is not usable: debug or info"),
    ],
)
def test_each_refusal_names_the_flag_or_the_word(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(Malformed, match=named):
        check(Settings(extender_auth="none", **wrong))  # type: ignore[arg-type]


def test_a_gang_may_wait_as_long_as_kube_scheduler_does_less_a_bind() -> None:
    check(Settings(extender_auth="none", gang_timeout=50.0, extender_timeout=60.0))


def test_nodes_are_packed_and_cards_spread_by_default() -> None:  # 6.5
    told = Settings()
    assert (told.node_scheduler_policy, told.gpu_scheduler_policy) == ("binpack", "spread")
    assert Policies() == Policies(node=NodePolicy.BINPACK, card=("spread",))
    plain = Ask(PodRef("ns", "p", PodUid("u")), ())
    assert (plain.node_policy, plain.card_policy) == (NodePolicy.BINPACK, ("spread",))


def test_a_config_file_that_is_not_there_is_named() -> None:
    with pytest.raises(Malformed, match="/no/such/file"):
        read_config("/no/such/file")
    assert read_config(None).nvidia.resource_count_name == "nvidia.com/gpu"


def test_a_binding_ends_before_another_replica_s_term_begins() -> None:
    assert bind_timeout(Settings()) == 10.0
    assert bind_timeout(Settings(leader_elect="lease")) == 5.0
    assert bind_timeout(Settings(leader_elect="follow", bind_timeout=2.0)) == 2.0
