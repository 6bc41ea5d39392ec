"""``layerfs login``: keep the credentials of a registry."""

from __future__ import annotations

import sys

from layerfs.cli.access import ACCESS, open_access
from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command, flag, one
from layerfs.errors import InvalidInputError

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] [REGISTRY]",
    [
        one("-p", "--password", help="The password; others can see it in the list of processes", metavar="password"),
        flag("--password-stdin", help="Read the password from the standard input"),
        one("-u", "--username", help="The user", metavar="name"),
        *ACCESS,
    ],
    most=1,
    notes="Without a registry Docker Hub is meant.",
)


def run(args: Args, context: Context) -> None:
    """Try the credentials, and keep them."""
    from layerfs.exchange import log_in

    if args.password is not None and args.password_stdin:
        raise InvalidInputError("login: --password and --password-stdin cannot be given together")
    username, password = args.username, args.password
    if args.password_stdin:
        if username is None:
            raise InvalidInputError("login: --password-stdin needs --username")
        password = context.binary_in("the password").read(1 << 16).decode(errors="replace").rstrip("\r\n")
    elif password is not None:
        context.err("Others can see a password on the command line; --password-stdin is safer.\n")
    username = username if username is not None else _ask("Username: ")
    password = password if password is not None else _ask_hidden("Password: ")
    if not username or not password:
        raise InvalidInputError("login: a user and a password are wanted")
    with open_access(args) as access:
        log_in(args.rest[0] if args.rest else "", username, password, access=access)
    context.out("Login Succeeded\n")


def _ask(prompt: str) -> str:
    if not sys.stdin.isatty():
        raise InvalidInputError("login: there is no terminal to ask at", hint="give -u and --password-stdin")
    sys.stderr.write(prompt)
    sys.stderr.flush()
    return sys.stdin.readline().strip()


def _ask_hidden(prompt: str) -> str:
    if not sys.stdin.isatty():
        raise InvalidInputError("login: there is no terminal to ask at", hint="give --password-stdin")
    from getpass import getpass

    try:
        return getpass(prompt)
    except EOFError:
        return ""
