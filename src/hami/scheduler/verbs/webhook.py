"""The mutating webhook: an AdmissionReview in, one out; no I/O, no clock, no state.

It makes a GPU pod ours (scheduler name, completed resources, environment) and
refuses what could get more than it asked. Pods without our resources reach it
only by the webhook object's match conditions failing to keep them out, and leave
it untouched (`scheduler.manifests`).
"""

from collections.abc import Callable, Sequence

from msgspec import Struct

from hami.model.ask import Ask
from hami.model.errors import Malformed
from hami.model.quota import Budget
from hami.model.vendor import ContainerRequest, Vendor
from hami.plan.exact import quota
from hami.scheduler.verbs.patch import pod_patch
from hami.vendors import gang, policies
from hami.vendors.ask import ask_of, completed, container_requests, refuse_too_many
from hami.vendors.refused import forged, unholdable
from hami.wire.admission import Review, decode_review, encode_allow, encode_deny
from hami.wire.objects import Pod

DEFAULT_SCHEDULER = "default-scheduler"


class WebhookSettings(Struct, frozen=True):
    scheduler_name: str = "hami-scheduler"
    """Written to GPU pods; empty never writes one."""
    force_overwrite_default_scheduler: bool = True
    """Whether ``default-scheduler`` counts as no scheduler named: the API server puts it into every pod."""


Budgets = Callable[[str], Sequence[Budget]]
"""What a namespace may still spend; nothing where it is not limited, or nothing is known yet."""


def unlimited(_namespace: str) -> Sequence[Budget]:
    return ()


class _Denied(Exception):
    """Ends the review with a refusal; `code` is HTTP's."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(message)


def review(body: bytes, settings: WebhookSettings, vendors: Sequence[Vendor], budgets: Budgets = unlimited) -> bytes:
    """Answer to one AdmissionReview; every body gets a well-formed answer."""
    try:
        asked = decode_review(body)
    except Malformed as fault:
        return encode_deny(None, 400, str(fault))
    try:
        return _answer(asked, settings, vendors, budgets)
    except _Denied as denied:
        return encode_deny(asked, denied.code, denied.message)
    except Malformed as fault:
        return encode_deny(asked, 422, str(fault))


def _answer(asked: Review, settings: WebhookSettings, vendors: Sequence[Vendor], budgets: Budgets) -> bytes:
    if asked.kind != "Pod" or asked.sub_resource or asked.operation != "CREATE":
        return encode_allow(asked)
    # 1. the pod, with nothing in it that only we write
    pod = _pod(asked)
    _refuse_forged_records(pod)
    # 2. somebody else's pod stays as it is
    requests, annotations = container_requests(pod), pod.metadata.annotations or {}
    if _is_foreign(pod, settings):
        return encode_allow(asked, warnings=_foreign_warnings(pod, settings, requests, vendors))
    # 3. what each vendor adds
    refuse_too_many(requests, vendors)
    changes = [vendor.complete(requests, annotations) for vendor in vendors]
    ours = any(change.asks for change in changes)
    warnings = [warning for change in changes for warning in change.warnings]
    # 4. what can be wrong with an ask is found here, not in the queue
    if ours:
        _refuse_unholdable(pod)
        ask = ask_of(completed(pod, changes), vendors)
        _refuse_over_quota(ask, budgets(asked.namespace or pod.metadata.namespace))
        warnings += policies.doubts(annotations)
        warnings += gang.doubts(pod.metadata)
    # 5. the answer
    scheduler_name = settings.scheduler_name if ours else ""
    return encode_allow(asked, pod_patch(asked.raw_object, changes, scheduler_name), warnings)


def _pod(asked: Review) -> Pod:
    try:
        pod = asked.pod()
    except Malformed as fault:
        raise _Denied(400, str(fault)) from fault
    if not pod.spec.containers:
        raise _Denied(403, "pod has no containers")
    return pod


def _refuse_forged_records(pod: Pod) -> None:
    why = forged(pod)
    if why is not None:
        raise _Denied(403, why)


def _refuse_unholdable(pod: Pod) -> None:
    why = unholdable(pod)
    if why is not None:
        raise _Denied(403, why)


def _refuse_over_quota(ask: Ask, budgets: Sequence[Budget]) -> None:
    """Row 8.7. What a percentage or a whole card comes to is known only with the card: the plan looks again."""
    refusal = quota.refuse(ask, budgets)
    if refusal is not None:
        raise _Denied(403, f"exceeding resource quota: {refusal.detail}")


def _is_foreign(pod: Pod, settings: WebhookSettings) -> bool:
    name = pod.spec.scheduler_name
    if not name or (name == DEFAULT_SCHEDULER and settings.force_overwrite_default_scheduler):
        return False
    return name != settings.scheduler_name


def _foreign_warnings(
    pod: Pod, settings: WebhookSettings, requests: Sequence[ContainerRequest], vendors: Sequence[Vendor]
) -> Sequence[str]:
    """Who names another scheduler gets no card: the agent grants only what our scheduler recorded."""
    if not _asks(pod, requests, vendors):
        return ()
    _refuse_unholdable(pod)
    ours = settings.scheduler_name or "the HAMi scheduler"
    return (
        f"spec.schedulerName is {pod.spec.scheduler_name}: the pod is left as it is and will get no card; "
        f"leave it out or name {ours}",
    )


def _asks(pod: Pod, requests: Sequence[ContainerRequest], vendors: Sequence[Vendor]) -> bool:
    """Whether a pod asks for cards; an ask that cannot be read is one."""
    try:
        return any(vendor.complete(requests, pod.metadata.annotations or {}).asks for vendor in vendors)
    except Malformed:
        return True
