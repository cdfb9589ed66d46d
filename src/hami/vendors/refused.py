"""What no pod that asks for cards may have, in words: the webhook's rules that are of no vendor.

None where there is nothing against it.
"""

from hami.wire.annotations import is_record
from hami.wire.objects import Pod


def forged(pod: Pod) -> str | None:
    """Row 2.12: a record in a new pod would count as cards it never got."""
    for kind, entries in (("annotations", pod.metadata.annotations), ("labels", pod.metadata.labels)):
        for key in entries or ():
            if is_record(key):
                return f"metadata.{kind}[{key}] is written by the scheduler only: remove it from the pod"
    return None


def unholdable(pod: Pod) -> str | None:
    """Row 2.11: a privileged container sees every card, and a pod with a node named is planned by nobody."""
    for container in (*(pod.spec.init_containers or ()), *pod.spec.containers):
        if container.security_context and container.security_context.privileged:
            reason = "it would see all cards of its node; a pod that asks for cards may have no privileged container"
            return f"container {container.name} is privileged: {reason}"
    if pod.spec.node_name:
        reason = "cards are planned by the scheduler; use a nodeSelector to choose a node"
        return f"pod has node assigned: spec.nodeName is {pod.spec.node_name}: {reason}"
    return None
