"""`hami scheduler`: run a replica; `hami scheduler config`: print what the cluster needs to use it."""

import re
from base64 import b64encode
from pathlib import Path
from typing import Any

import click

from hami.cli.options import from_settings
from hami.scheduler.settings import Settings

PARTS = ("objects", "kube-scheduler")
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""What Kubernetes takes as the name of a namespace."""


def namespace_name(_context: click.Context, _parameter: click.Parameter, name: str) -> str:
    if not LABEL.fullmatch(name):
        raise click.BadParameter(f"{name!r}: up to 63 of a-z, 0-9 and -, as in hami-system")
    return name


def authority(path: Path) -> str:
    """The file as the webhook's caBundle. Raises `Malformed` where no certificate is in it: the API server would
    take any of its own authorities then."""
    from cryptography.x509 import load_pem_x509_certificates

    from hami.config import files
    from hami.model.errors import Malformed

    found = files.read(path)
    try:
        load_pem_x509_certificates(found)
    except ValueError:
        raise Malformed("--ca-file", str(path), "a file with a certificate in PEM form") from None
    return b64encode(found).decode()


@from_settings(Settings)
@click.group(invoke_without_command=True)
@click.pass_context
def command(context: click.Context, /, **fields: Any) -> None:
    """Run the scheduler: kube-scheduler's extender, and webhook.

    \b
    hami scheduler --cert-file tls.crt --key-file tls.key \\
        --extender-client-ca ca.crt
    hami scheduler config | kubectl apply -f -

    It decides which node and which cards a pod gets, holds the slice, and binds the pod
    with its record in one request. `hami scheduler config` prints the objects that make
    kube-scheduler and the API server call it.

    It needs the account that `config` prints, and answers when /readyz says so.

    Exit status: 0 told to stop, 1 a fault, 2 wrong use, 3 something needed is not to be had.
    """
    if context.invoked_subcommand is not None:
        return
    from hami.scheduler import app

    app.run(Settings(**fields))


@command.command("config")
@click.argument("part", type=click.Choice(PARTS), default="objects")
@click.option("--namespace", default="hami-system", show_default=True, callback=namespace_name,
              help="Where scheduler and agents run.")  # fmt: skip
@click.option("--scheduler-name", default="hami-scheduler", show_default=True, help="schedulerName of GPU pods.")
@click.option("--device-config-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Your names.")
@click.option("--webhook-url", help="Where the API server reaches the webhook, when not through the Service.")
@click.option("--extender-url", default="https://127.0.0.1:8443", show_default=True, help="For kube-scheduler.")
@click.option(
    "--extender-timeout",
    type=click.IntRange(1, 300),
    default=30,
    show_default=True,
    help="Seconds kube-scheduler waits for an answer; tell the scheduler the same.",
)
@click.option("--ca-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Signed the webhook.")
@click.option("--cpu-pods", is_flag=True, help="Let pack also say where pods without cards go that name our scheduler.")
@click.option("--record-writer", multiple=True, help="One more user who may write hami.io/* records, for repairs.")
def config(
    *,
    part: str,
    namespace: str,
    scheduler_name: str,
    device_config_file: Path | None,
    webhook_url: str | None,
    extender_url: str,
    extender_timeout: int,
    ca_file: Path | None,
    cpu_pods: bool,
    record_writer: tuple[str, ...],
) -> None:
    """Print what makes a cluster use the scheduler, for kubectl.

    \b
    hami scheduler config --ca-file ca.crt | kubectl apply -f -
    hami scheduler config kube-scheduler > kube-scheduler.yaml

    \b
    objects         accounts and rights, also for people's questions, webhook,
                    admission policies, and a ConfigMap with kube-scheduler's
                    configuration
    kube-scheduler  that configuration alone, for kube-scheduler's --config

    Exit status: 0 done, 2 wrong use or a file that cannot be used.
    """
    from hami.config import files, load
    from hami.config.schema import DeviceConfig
    from hami.scheduler import manifests
    from hami.vendors import table

    devices = DeviceConfig()
    if device_config_file:
        devices = load.device_config(files.text(device_config_file), str(device_config_file))
    site = manifests.Site(
        vendors=table.load(devices),
        namespace=namespace,
        scheduler_name=scheduler_name,
        webhook_url=webhook_url,
        ca_bundle=authority(ca_file) if ca_file else "",
        record_writers=record_writer,
        hide_cards=devices.nvidia.overwrite_env,
        extender_url=extender_url,
        extender_timeout_seconds=extender_timeout,
        cpu_pods=cpu_pods,
    )
    kube_scheduler = manifests.to_yaml([manifests.scheduler_configuration(site)])
    if part == "kube-scheduler":
        click.echo(kube_scheduler, nl=False)
        return
    home = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    objects = [
        home,
        *manifests.rbac(site),
        *manifests.people(site),
        *manifests.admission(site),
        stored(site, kube_scheduler),
    ]
    click.echo(manifests.to_yaml(objects), nl=False)


def stored(site: Any, kube_scheduler: str) -> dict[str, Any]:
    """kube-scheduler's configuration is a file, no object: it travels in a ConfigMap."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{site.name}-kube-scheduler", "namespace": site.namespace},
        "data": {"config.yaml": kube_scheduler},
    }
