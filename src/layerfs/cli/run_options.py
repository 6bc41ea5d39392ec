"""The options of ``run`` and ``create``, named as docker names them; ``containers.flags`` reads their values."""

from __future__ import annotations

from typing import Any

from layerfs.cli.options import Args, Option, flag, many, one

__all__ = ["RUN_OPTIONS", "flags_of"]

_PROCESS = (
    many("-a", "--attach", help="Join stdin, stdout or stderr; all without it", metavar="stream"),
    one("--entrypoint", help="Execute this instead of the image's entry point", metavar="command"),
    many("-e", "--env", help="Set a variable; a NAME alone takes what it is here", metavar="NAME[=VALUE]"),
    many("--env-file", help="Set the variables in a file", metavar="FILE"),
    many("--group-add", help="Give the process another group", metavar="group"),
    flag("--init", help="Run a small init that reaps processes"),
    flag("-i", "--interactive", help="Keep the standard input open"),
    many("-l", "--label", help="Set a label", metavar="NAME[=VALUE]"),
    many("--label-file", help="Set the labels in a file", metavar="FILE"),
    one("--restart", help="When to start it again", metavar="policy"),
    one("--stop-signal", help="The signal that stops it", metavar="signal"),
    one("--stop-timeout", help="Seconds between that and its end by force", metavar="seconds"),
    one("--timeout", help="Kill it after so many seconds", metavar="seconds"),
    flag("-t", "--tty", help="Give it a terminal"),
    one("--tz", help="Its time zone, as Europe/Paris; local: the host's", metavar="zone"),
    one("--umask", help="The umask of its processes (0022)", metavar="mode"),
    many("--unsetenv", help="Leave out a variable of the image", metavar="NAME"),
    flag("--unsetenv-all", help="Leave out all variables but those that are set here"),
    one("-u", "--user", help="Run as this user, by name or number", metavar="user[:group]"),
    one("-w", "--workdir", help="Start in this directory", metavar="DIR"),
    one("--health-cmd", help="Check its health by this command", metavar="command"),
    one("--health-interval", help="Time between checks", metavar="duration"),
    one("--health-retries", help="Failures in a row that mean unhealthy", metavar="count"),
    one("--health-start-interval", help="Time between checks while it starts", metavar="duration"),
    one("--health-start-period", help="Time in which it starts and failures do not count", metavar="duration"),
    one("--health-timeout", help="Time that a check may take", metavar="duration"),
    flag("--no-healthcheck", help="Do not check its health, whatever the image says"),
    one("--log-driver", help="json-file, or none", metavar="driver"),
    many("--log-opt", help="max-size (100m; -1: no end) and max-file (10) of the log", metavar="NAME=VALUE"),
)
_PLACE = (
    many("--add-host", help="Add a line to /etc/hosts", metavar="name:address"),
    one("--cgroupns", help="Its cgroup namespace: private or host", metavar="kind"),
    many("--device", help="Give it a device of the host", metavar="PATH[:PATH[:rwm]]"),
    many("--dns", help="Ask this name server", metavar="address"),
    many("--dns-opt", "--dns-option", help="An option of the resolver", metavar="option"),
    many("--dns-search", help="Search names in this domain", metavar="domain"),
    one("--domainname", help="Its domain name", metavar="name"),
    many("--expose", help="Note a port that it listens on", metavar="port[/protocol]"),
    one("-h", "--hostname", help="Its host name", metavar="name"),
    one("--ipc", help="Its IPC namespace: private, shareable, none, host or container:NAME", metavar="kind"),
    many("--mount", help="Mount a path, volume, tmpfs or image", metavar="type=TYPE,..."),
    one("--network", help="host, none or container:NAME", metavar="kind"),
    one("--net", help="The same", metavar="kind"),
    one("--pid", help="Its PID namespace: private, host or container:NAME", metavar="kind"),
    flag("--read-only", help="Let it write nowhere but in volumes and tmpfs"),
    one("--shm-size", help="Size of /dev/shm", metavar="bytes"),
    many("--tmpfs", help="Mount a tmpfs", metavar="DIR[:options]"),
    one("--userns", help="Its user namespace: host, auto or keep-id", metavar="kind"),
    one("--uts", help="Its UTS namespace: private, host or container:NAME", metavar="kind"),
    many("-v", "--volume", help="Mount a path of the host or a volume", metavar="SOURCE:DIR[:options]"),
    many("--volumes-from", help="Mount what another container has mounted", metavar="container[:ro]"),
)
_LIMITS = (
    many("--device-read-bps", help="How many bytes a second it may read of a device", metavar="DEVICE:RATE"),
    many("--device-read-iops", help="How often a second it may read of a device", metavar="DEVICE:RATE"),
    many("--device-write-bps", help="How many bytes a second it may write to a device", metavar="DEVICE:RATE"),
    many("--device-write-iops", help="How often a second it may write to a device", metavar="DEVICE:RATE"),
    many("--cap-add", help="Give it a capability", metavar="capability"),
    many("--cap-drop", help="Take a capability", metavar="capability"),
    one("--cgroup-parent", help="Put it below this cgroup", metavar="path"),
    one("--cpu-period", help="The period that --cpu-quota is of", metavar="microseconds"),
    one("--cpu-quota", help="How much time of CPUs it may use in a period", metavar="microseconds"),
    one("-c", "--cpu-shares", help="Its weight against others", metavar="shares"),
    one("--cpus", help="How many CPUs it may use", metavar="number"),
    one("--cpuset-cpus", help="Which CPUs it may use", metavar="list"),
    one("--cpuset-mems", help="Which memory nodes it may use", metavar="list"),
    one("-m", "--memory", help="How much memory it may use", metavar="bytes"),
    one("--memory-reservation", help="How much memory it keeps when memory is short", metavar="bytes"),
    one("--memory-swap", help="How much memory and swap together, -1: any", metavar="bytes"),
    one("--oom-score-adj", help="How early it is killed when memory runs out", metavar="number"),
    one("--pids-limit", help="How many processes it may have, -1: any", metavar="number"),
    flag("--privileged", help="Let it do all that root may"),
    many("--security-opt", help="An option of security, as no-new-privileges", metavar="option"),
    many("--sysctl", help="Set a kernel parameter of its namespaces", metavar="NAME=VALUE"),
    many("--ulimit", help="Limit a resource", metavar="NAME=SOFT[:HARD]"),
)
_GENERAL = (
    many("--annotation", help="Note something for the runtime", metavar="NAME=VALUE"),
    one("--cidfile", help="Write its ID to this file", metavar="FILE"),
    one("--name", help="Its name", metavar="name"),
    one("--platform", help="Take the image for this platform", metavar="os/arch[/variant]"),
    flag("--replace", help="Remove the container that has its name first"),
    flag("--rm", help="Remove it when it ends"),
    one("--runtime", help="auto, builtin, crun, runc, or the path of one", metavar="runtime"),
)


def _refused(*names: str, switch: bool = False) -> Option:
    return Option(names, "", type=None if switch else str, metavar="", repeated=not switch, hidden=True)


# Known, so that their values are not taken for the image, and refused by their names.
_REFUSED = (
    *(_refused(name) for name in (
        "--blkio-weight", "--blkio-weight-device", "--cpu-rt-period", "--cpu-rt-runtime",
        "--device-cgroup-rule",
        "--gpus", "--ip", "--ip6", "--isolation", "--kernel-memory", "--link",
        "--link-local-ip", "--mac-address", "--memory-swappiness", "--network-alias", "--storage-opt",
        "--volume-driver",
        # Of podman.
        "--gidmap", "--pod", "--pod-id-file", "--requires", "--sdnotify", "--secret", "--subgidname", "--subuidname",
        "--systemd", "--uidmap",
    )),
    _refused("-p", "--publish"),
    _refused("-P", "--publish-all", switch=True),
    _refused("--oom-kill-disable", switch=True),
    _refused("--rootfs", switch=True),
    _refused("--use-api-socket", switch=True),
)  # fmt: skip

RUN_OPTIONS = (*_PROCESS, *_PLACE, *_LIMITS, *_GENERAL, *_REFUSED)

_OWN = ("cidfile", "replace")


def flags_of(args: Args) -> dict[str, Any]:
    """Return the options that the user gave, for ``containers.create_options``."""
    keys = {option.key for option in RUN_OPTIONS} - set(_OWN)
    return {key: getattr(args, key) for key in keys & args.given}
