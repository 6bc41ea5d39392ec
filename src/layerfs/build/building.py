"""``build``: from the Dockerfile to the image, in order, and everything away again whatever happens."""

import os
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from layerfs.build.cache import cache_key
from layerfs.build.check import Finding, check_dockerfile
from layerfs.build.context import TreeKeeper, drop_layers, open_context
from layerfs.build.options import BuildOptions, BuildParts, BuildResult, check_options
from layerfs.build.output import check_outputs, deliver, output_names
from layerfs.build.parser import parse
from layerfs.build.plan import Plan, global_arguments, make_plan
from layerfs.build.running import HOSTNAME, Runner, sweep_dead_builds
from layerfs.build.session import Session
from layerfs.build.stage import build_stage
from layerfs.build.state import StageState
from layerfs.build.tree import Tree
from layerfs.digest import Digest
from layerfs.errors import InvalidInputError
from layerfs.leases import Lease
from layerfs.oci import Platform
from layerfs.reference import Reference

__all__ = ["build", "check_build"]

_TIMES = "build-time"
_EPOCH = "SOURCE_DATE_EPOCH"
_JOBS = 4


def build(parts: BuildParts, options: BuildOptions) -> BuildResult:
    """Build what ``options`` say.

    Raises InvalidInputError with file and line for mistakes in the Dockerfile, BuildError for a step that fails,
    NotFoundError for what is missing, and what pulls and the system raise.
    """
    if os.geteuid() != 0:
        from layerfs.build.unprivileged import build_unprivileged  # root needs it not

        return build_unprivileged(parts, options, build)
    tags = _tags(options)
    check_outputs(options)
    if options.cache_from or options.cache_to:
        from layerfs.build.cacheio import check_caches  # few builds do

        check_caches(options.cache_from, options.cache_to)
    environment = options.environment if options.environment is not None else dict(os.environ)
    check_options(options, environment)
    given = _given(options, environment)
    _epoch(given.get(_EPOCH) or environment.get(_EPOCH))
    platform = Platform.parse(options.platform) if options.platform else Platform.host()
    sweep_dead_builds(parts.snapshots, parts.run)
    temporary: list[Digest] = []
    try:
        with ExitStack() as stack:
            lease = stack.enter_context(Lease(parts.database, parts.ingest))
            keeper = stack.enter_context(TreeKeeper(parts, lease))
            temporary = keeper.temporary
            context = stack.enter_context(open_context(options, keeper))
            file = parse(context.dockerfile, context.name)
            arguments = global_arguments(file, given, platform, options.target)
            notes, clamp = _clamp(given, environment, arguments, context.tree)
            plan = make_plan(file, options.target or None, arguments, options.contexts)
            runner = stack.enter_context(
                Runner(
                    parts,
                    lease,
                    runtime=options.runtime,
                    add_hosts=options.add_hosts,
                    clamp=clamp,
                    debug_shell=options.debug_shell,
                    hostname=given.get("BUILDKIT_SANDBOX_HOSTNAME", HOSTNAME),
                )
            )
            session = Session(
                parts, options, lease, keeper, runner, context=context.tree, file=file, plan=plan, given=given,
                environment=environment, platform=platform, clamp=clamp,
            )  # fmt: skip
            for note in notes:
                session.warn(note)
            return _build(session, tags)
    finally:
        drop_layers(parts, temporary)


def check_build(parts: BuildParts, options: BuildOptions) -> tuple[list[Finding], bool]:
    """Look at a Dockerfile without building it: the warnings, and whether the file wants them to be errors.

    Mistakes are raised as ``build`` raises them.
    """
    environment = options.environment if options.environment is not None else dict(os.environ)
    given = _given(options, environment)
    platform = Platform.parse(options.platform) if options.platform else Platform.host()
    with ExitStack() as stack:
        lease = stack.enter_context(Lease(parts.database, parts.ingest))
        keeper = stack.enter_context(TreeKeeper(parts, lease))
        context = stack.enter_context(open_context(options, keeper))
        file = parse(context.dockerfile, context.name)
        arguments = global_arguments(file, given, platform, options.target)
        make_plan(file, options.target or None, arguments, options.contexts)
        return check_dockerfile(file, given, context.tree.ignore)


def _build(session: Session, tags: list[str]) -> BuildResult:
    options = session.options
    if options.cache_from:
        from layerfs.build.cacheio import import_caches  # few builds do

        import_caches(session)
    findings, failing = check_dockerfile(session.file, session.given, session.context.ignore)
    for finding in findings:
        session.warn(str(finding))
    if findings and failing:
        rules = ", ".join(dict.fromkeys(finding.rule for finding in findings))
        raise InvalidInputError(f"{session.file.file}: its check directive makes errors of warnings: {rules}")
    state = _stages(session)
    _warn_unused(session)
    if session.given.get("BUILDKIT_INLINE_CACHE") == "1":
        session.warn("BUILDKIT_INLINE_CACHE: no cache is put into the image; --cache-to type=registry leaves one")
    for name, value in options.labels.items():
        state.section["Labels"] = {**(state.section.get("Labels") or {}), name: value}
    image, metadata = deliver(session, state, tags, _created(session))
    session.cache.flush()
    if options.cache_to:
        from layerfs.build.cacheio import export_caches  # few builds do

        export_caches(session, state)
    return BuildResult(image, tuple(session.warnings), session.ran, session.cached, metadata)


def _tags(options: BuildOptions) -> list[str]:
    names = [str(Reference.parse_new(tag)) for tag in (*options.tags, *output_names(options))]
    return list(dict.fromkeys(names))


def _given(options: BuildOptions, environment: Mapping[str, str]) -> dict[str, str]:
    """Build arguments; one without a value has that of the environment, or is not given."""
    found = {}
    for name, value in options.build_args.items():
        if value is None:
            value = environment.get(name)
        if value is not None:
            found[name] = value
    return found


def _epoch(text: str | None) -> int | None:
    """The second that SOURCE_DATE_EPOCH says; None where it is to be that of the context, or is not given."""
    if not text or text == "context":
        return None
    if not text.isdecimal() or len(text) > 11:
        raise InvalidInputError(
            f"SOURCE_DATE_EPOCH {text!r}: not a time in seconds", hint='give a number, or "context" for its time'
        )
    return int(text)


def _clamp(
    given: dict[str, str], environment: Mapping[str, str], arguments: dict[str, str], tree: Tree
) -> tuple[list[str], int | None]:
    """What to warn of, and the second that no time is to be later than: a build argument, that of the environment, or
    of an ARG before the first FROM. ``context`` is replaced where it stands by what it means."""
    text = given.get(_EPOCH) or environment.get(_EPOCH) or arguments.get(_EPOCH)
    if text != "context":
        return [], _epoch(text)
    age = tree.age()
    for values in (given, arguments):
        values.pop(_EPOCH, None)
        if age is not None:
            values[_EPOCH] = str(age)
    return (
        [] if age is not None else ["SOURCE_DATE_EPOCH=context: a directory has no time of its own, so it is not set"]
    ), age


def _stages(session: Session) -> StageState:
    """Build all stages that are needed: one after the other, or those that do not need each other at once."""
    plan = session.plan
    jobs = session.options.jobs or min(_JOBS, os.cpu_count() or 1)
    if len(plan.stages) == 1 or jobs == 1:
        return _one_by_one(session, plan)
    return _at_once(session, plan, jobs)


def _one_by_one(session: Session, plan: Plan) -> StageState:
    done: dict[int, StageState] = {}

    def state_of(number: int) -> StageState:
        if number not in done:
            done[number] = build_stage(session, plan.others[number])
        return done[number]

    session.state_of = state_of
    for number, stage in plan.stages.items():
        done[number] = build_stage(session, stage)
    return done[plan.target]


def _at_once(session: Session, plan: Plan, jobs: int) -> StageState:
    """A stage begins when those before it have begun, and waits where it needs one: so there is no deadlock."""
    # Imported here because most builds have one stage, or nothing to do.
    from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

    futures: dict[int, Future[StageState]] = {}
    lock = threading.Lock()

    def state_of(number: int) -> StageState:
        with lock:
            unplanned = number not in futures
            if unplanned:
                futures[number] = Future()
        if unplanned:  # whoever asks first builds it: all threads of the pool may be waiting
            try:
                futures[number].set_result(build_stage(session, plan.others[number]))
            except BaseException as exc:
                futures[number].set_exception(exc)
        return futures[number].result()

    session.state_of = state_of
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="layerfs-build")
    try:
        for number, stage in plan.stages.items():
            futures[number] = pool.submit(build_stage, session, stage)
        planned = [futures[number] for number in plan.stages]
        wait(planned, return_when=FIRST_EXCEPTION)
        for future in planned:
            if future.done() and (error := future.exception()) is not None:
                raise error
        return futures[plan.target].result()
    finally:
        session.runner.stop()
        pool.shutdown(wait=True, cancel_futures=True)


def _created(session: Session) -> "Any":
    """The time of a document that has no layer of its own: when the same was built first."""

    def created(document: dict[str, Any]) -> str:
        if session.clamp is not None:
            return session.moment()
        key = cache_key("image", document)
        known = session.parts.database.record(_TIMES, key) if not session.options.no_cache else None
        if known is not None:
            return str(known["created"])
        now = session.moment()
        session.parts.database.put_record(_TIMES, key, {"created": now})
        return now

    return created


def _warn_unused(session: Session) -> None:
    """Build arguments that nothing declares."""
    from layerfs.build.instructions import Arg
    from layerfs.build.plan import PROXIES

    declared = {name for argument in session.file.arguments for name, _ in argument.pairs}
    for stage in session.file.stages:
        for instruction in stage.instructions:
            if isinstance(instruction, Arg):
                declared.update(name for name, _ in instruction.pairs)
    for name in session.given:
        if name not in declared and name not in PROXIES and not name.startswith(("BUILDKIT_", "SOURCE_DATE_EPOCH")):
            session.warn(f"build argument {name}: no ARG declares it")
