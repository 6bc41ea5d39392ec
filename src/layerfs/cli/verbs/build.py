"""``layerfs build``: make an image by a Dockerfile."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from layerfs.cli.build_options import pairs, parse_output, parse_secret, parse_ssh
from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command, flag, many, one
from layerfs.errors import InvalidInputError

if TYPE_CHECKING:
    from layerfs.build import BuildOptions, Output

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] [DIRECTORY|URL|-]",
    [
        many("--add-host", help="Add a line to /etc/hosts of every RUN", metavar="name:address"),
        many("--allow", help="Allow what needs to be allowed, as security.insecure", metavar="entitlement"),
        many("--attest", help="Refused unless disabled: attestations are not made", metavar="attestation"),
        many("--annotation", help="Set an annotation of the manifest", metavar="NAME=VALUE"),
        many("--build-arg", help="Set an ARG; a NAME alone takes the value from here", metavar="NAME[=VALUE]"),
        many("--build-context", help="Give a directory, image or URL a name for FROM and --from", metavar="NAME=PLACE"),
        many("--cache-from", help="Take what was cached elsewhere", metavar="place"),
        many("--cache-to", help="Leave what is cached there too", metavar="place"),
        flag("--check", help="Do not build; show what in the Dockerfile is better not done"),
        flag("--debug-shell", help="When a command fails, open a shell where it ran"),
        one("-f", "--file", help="The Dockerfile, - for the standard input", metavar="FILE"),
        one("--format", help="The media types of the manifest", default="oci", choices=("oci", "docker")),
        one("--ignorefile", help="The ignore file", metavar="FILE"),
        one("--iidfile", help="Write the image ID to this file", metavar="FILE"),
        one("--jobs", help="Stages at a time", type=int, default=0, metavar="count"),
        many("--label", help="Set a label", metavar="NAME=VALUE"),
        flag("--load", help="Put the image into the store, besides other outputs"),
        one("--metadata-file", help="Write digests and names as JSON to this file", metavar="FILE"),
        one("--network", help="What RUN sees: default, host or none", default="default", metavar="kind"),
        flag("--no-cache", help="Do all steps"),
        many("--no-cache-filter", help="Do all steps of this stage", metavar="stage"),
        many("-o", "--output", help="A directory, - for a tar, or type=TYPE,dest=PATH", metavar="output"),
        one("--platform", help="What the image runs on", metavar="os/arch[/variant]"),
        one(
            "--progress",
            help="How to show it",
            default="auto",
            choices=("auto", "plain", "tty", "quiet"),
        ),
        one("--provenance", help="Refused unless false: attestations are not made", metavar="bool"),
        flag("--pull", help="Look for newer base images"),
        flag("--push", help="Send the image to the registry that its names say"),
        flag("-q", "--quiet", help="Print only the image ID"),
        one("--runtime", help="What runs RUN: builtin, crun, runc, or the path of one", default="builtin"),
        one("--sbom", help="Refused unless false: attestations are not made", metavar="bool"),
        many("--secret", help="Give a secret to RUN --mount=type=secret", metavar="id=ID[,src=FILE|env=NAME]"),
        flag("--squash", help="Make one layer of all that is built"),
        many("--ssh", help="Give an agent's socket or a key to RUN --mount=type=ssh", metavar="default|ID[=PATH]"),
        many("-t", "--tag", help="A name for the image", metavar="NAME[:TAG]"),
        one("--target", help="Build up to this stage", metavar="stage"),
    ],
    most=1,
    notes="The context is a directory (default: this one), a URL of a tar or a Git repository, or a tar on the\n"
    "standard input.",
)

_SAME = (
    *(
        "debug_shell",
        "file",
        "iidfile",
        "metadata_file",
        "network",
        "no_cache",
        "platform",
        "pull",
        "runtime",
        "squash",
        "target",
    ),
    *("jobs", "format"),
)
_LISTS = ("allow", "cache_from", "cache_to", "no_cache_filter")


def run(args: Args, context: Context) -> int:
    """Build, and print the image ID."""
    from layerfs.build import BuildOptions
    from layerfs.cli.build_progress import choose_steps

    place = args.rest[0] if args.rest else "."
    _refuse_attestations(args)
    fields: dict[str, Any] = {name: getattr(args, name) for name in _SAME}
    fields |= {name: tuple(getattr(args, name)) for name in _LISTS}
    options = BuildOptions(
        context=place,
        stdin=context.binary_in("a Dockerfile or tar archive") if "-" in (place, args.file) else None,
        contexts=pairs(args.build_context, "--build-context"),
        tags=tuple(args.tag),
        build_args=_arguments(args.build_arg),
        labels=pairs(args.label, "--label"),
        annotations=pairs(args.annotation, "--annotation"),
        secrets=tuple(map(parse_secret, args.secret)),
        ssh=parse_ssh(args.ssh),
        add_hosts=_hosts(args.add_host),
        outputs=_outputs(args, context),
        ignore_file=args.ignorefile,
        progress=choose_steps("quiet" if args.quiet else args.progress),
        **fields,
    )
    if args.check:
        return _check(context, options)
    result = context.store.build(options)
    if result.image is not None and not any(output.dest is sys.stdout.buffer for output in options.outputs):
        context.out(f"{result.image.id}\n")
    return 0


def _check(context: Context, options: BuildOptions) -> int:
    """Print the warnings; as with docker there is a failure where there is a warning."""
    findings, _ = context.store.check_build(options)
    for finding in findings:
        context.out(f"{finding}\n")
    found = f"{len(findings)} warning{'s' * (len(findings) > 1)} found" if findings else "no warnings found"
    context.out(f"Check complete, {found}.\n")
    return 1 if findings else 0


def _refuse_attestations(args: Args) -> None:
    """Scripts for other builders often switch them off, which is what they get; on they cannot be."""
    asked = [("provenance", args.provenance), ("sbom", args.sbom)]
    asked += [("attest", word) for word in args.attest if "disabled=true" not in word.split(",")]
    for name, value in asked:
        if value not in (None, "false", "0"):
            raise InvalidInputError(f"--{name}={value}: attestations are not made", hint="leave it out")


def _arguments(words: list[str]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for word in words:
        name, equals, value = word.partition("=")
        found[name] = value if equals else None
    return found


def _hosts(words: list[str]) -> tuple[tuple[str, str], ...]:
    from layerfs.containers import create_options

    return create_options("", (), {"add_host": words}).add_hosts


def _outputs(args: Args, context: Context) -> tuple[Output, ...]:
    from layerfs.build import Output

    outputs = [parse_output(word, context) for word in args.output]
    if args.push:
        outputs.append(Output("registry"))
    elif args.load:
        outputs.append(Output("image"))
    return tuple(outputs)
