"""Manifests follow the installation they are made for. That they work is shown in tests/flow/test_admission.py."""

from typing import Any

import pytest
import yaml

from hami.config.load import device_config
from hami.scheduler import manifests
from hami.scheduler.manifests import Site, cel
from hami.scheduler.manifests.extender import PLUGIN_WEIGHTS
from hami.vendors.table import load

RENAMED = "nvidia: {resourceCountName: nvidia.com/vgpu, resourceMemoryPercentageName: ''}"


def site(config: str = "", **changes: Any) -> Site:
    return Site(vendors=load(device_config(config, "c")), **changes)


def webhooks(given: Site) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = manifests.mutating_webhook(given)["webhooks"]
    return listed


def extender(given: Site) -> dict[str, Any]:
    (one,) = manifests.scheduler_configuration(given)["extenders"]
    assert isinstance(one, dict)
    return one


def test_our_ten_outweighs_all_that_default_plugins_can_give() -> None:
    best_of_others = 100 * sum(PLUGIN_WEIGHTS.values())
    assert 10 * extender(site())["weight"] * 10 > best_of_others
    assert extender(site(extender_weight=20))["weight"] == 20


def test_pods_without_cards_are_asked_about_only_where_that_is_wanted() -> None:
    """By a second extender that manages no resource, which kube-scheduler does without where it is not there."""
    cards, hosts = manifests.scheduler_configuration(site(cpu_pods=True))["extenders"]
    assert cards == extender(site())
    assert (hosts["prioritizeVerb"], hosts["ignorable"], hosts["weight"]) == ("shelter", True, cards["weight"])
    assert (hosts["urlPrefix"], hosts["tlsConfig"]) == (cards["urlPrefix"], cards["tlsConfig"])
    assert hosts["httpTimeout"] == "5s"  # nobody waits long for a preference
    assert not {"managedResources", "filterVerb", "bindVerb", "preemptVerb"} & set(hosts)


def test_renamed_resources_are_managed_watched_and_warned_about() -> None:
    given = site(RENAMED)
    managed = [entry["name"] for entry in extender(given)["managedResources"]]
    assert managed == ["nvidia.com/vgpu", "nvidia.com/gpumem", "nvidia.com/gpucores", "nvidia.com/priority"]
    assert all(entry["ignoredByScheduler"] for entry in extender(given)["managedResources"])
    (condition,) = webhooks(given)[0]["matchConditions"]
    assert "'nvidia.com/vgpu'" in condition["expression"]
    assert "'nvidia.com/gpu'" not in condition["expression"]
    assert "'nvidia.com/vgpu'" in str(manifests.controller_policy(given))


def test_plain_http_needs_no_certificates_and_https_names_the_host() -> None:
    plain = extender(site(extender_url="http://127.0.0.1:8080"))
    assert (plain["enableHTTPS"], "tlsConfig" in plain) == (False, False)
    secured = extender(site(extender_url="https://hami.example:8443"))
    assert (secured["enableHTTPS"], secured["tlsConfig"]["serverName"]) == (True, "hami.example")


def test_only_the_webhook_for_cards_fails_closed() -> None:
    (alone,) = webhooks(site())
    assert (alone["failurePolicy"], alone["admissionReviewVersions"][0]) == ("Fail", "v1")
    first, second = webhooks(site(hide_cards=True))
    assert (first["failurePolicy"], second["failurePolicy"]) == ("Fail", "Ignore")
    assert second["matchConditions"][0]["expression"] == f"!({first['matchConditions'][0]['expression']})"


def test_the_webhook_is_reached_by_service_or_by_url() -> None:
    assert webhooks(site())[0]["clientConfig"] == {
        "service": {"namespace": "hami-system", "name": "hami-scheduler", "path": "/webhook", "port": 443}
    }
    by_url = webhooks(site(webhook_url="https://h/webhook", ca_bundle="Y2E="))[0]["clientConfig"]
    assert by_url == {"url": "https://h/webhook", "caBundle": "Y2E="}


def test_names_of_accounts_reach_policies_and_bindings() -> None:
    given = site(namespace="gpu", scheduler_account="s", agent_account="a", record_writers=["root"])
    policy = str(manifests.record_policy(given))
    assert all(user in policy for user in ("system:serviceaccount:gpu:s", "system:serviceaccount:gpu:a", "'root'"))
    subjects = [one["subjects"][0] for one in manifests.rbac(given) if "subjects" in one]
    assert {(subject["name"], subject["namespace"]) for subject in subjects} == {("s", "gpu"), ("a", "gpu")}


def test_nobody_gets_a_wildcard_or_a_secret() -> None:
    for role in manifests.rbac(site()):
        for rule in role.get("rules", ()):
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
            assert "secrets" not in rule["resources"]


def test_what_is_printed_is_what_was_made() -> None:
    given = site()
    made = [manifests.scheduler_configuration(given), *manifests.admission(given), *manifests.rbac(given)]
    text = manifests.to_yaml(made)
    assert list(yaml.safe_load_all(text)) == made
    assert "# weight 100: our 10" in text
    assert "&id" not in text


@pytest.mark.parametrize(("value", "literal"), [("a", "'a'"), ("it's", "'it\\'s'"), ("a\\b", "'a\\\\b'")])
def test_strings_cannot_leave_their_literal(value: str, literal: str) -> None:
    assert cel.string(value) == literal
