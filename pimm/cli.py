"""Command lines: options that are told near names, defaults in a file, one clear line for a mistake, exit codes."""

from __future__ import annotations

import argparse
import difflib
import errno
import os
import sys
import time
import traceback

import yaml

from pimm import preemption
from pimm.errors import ConfigError, PimmError
from pimm.threads import THREADS

# What the file system refuses is the user's to mend; any other OSError is a fault of the program.
_FILE_TROUBLE = {
    getattr(errno, name)
    for name in ("ENOENT", "EEXIST", "EACCES", "EPERM", "EISDIR", "ENOTDIR", "ENOSPC", "EDQUOT", "EFBIG", "EROFS")
    if hasattr(errno, name)
}

# Seconds within which paddle.distributed.launch notices that a process has failed.
_LAUNCHER_PATIENCE = 10


class Parser(argparse.ArgumentParser):
    """A parser that tells a mistake in one line, and takes defaults from the YAML file that ``-c`` names.

    The file holds option names with ``_`` for ``-``, as in the ``args.yaml`` of a training. ``--local_rank``, which
    older launchers append, is passed over.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.add_argument("-c", "--config", metavar="FILE", default="", help="YAML file with defaults of the options")
        self.add_argument("--local_rank", "--local-rank", type=int, dest=argparse.SUPPRESS, help=argparse.SUPPRESS)

    def parse_args(self, args=None, namespace=None):
        """Parse; ConfigError for an option in the file that there is not, SystemExit(2) for any other mistake."""
        first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        first.add_argument("-c", "--config", default="")
        path = first.parse_known_args(args)[0].config
        if path:
            self.set_defaults(**self._read_defaults(path))
        parsed, unknown = self.parse_known_args(args, namespace)
        if parsed.config != path:
            self.error("--config is written out, or -c")
        if unknown:
            word = next((word for word in unknown if word.startswith("-")), unknown[0]).partition("=")[0]
            self.error(f"there is no option {word}{_near(word, self._option_string_actions)}")
        return parsed

    def error(self, message):
        self.exit(2, f"error: {message} (--help lists the options)\n")

    def _read_defaults(self, path):
        with open(path, encoding="utf-8") as file:
            try:
                defaults = yaml.safe_load(file)
            except (yaml.YAMLError, UnicodeDecodeError) as error:
                raise ConfigError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
        if not isinstance(defaults, dict):
            raise ConfigError(f"{path} does not hold options and their values")
        known = {action.dest: action for action in self._actions}
        for name, value in defaults.items():
            if name not in known:
                raise ConfigError(f"{path}: there is no option {name}{_near(str(name), known)}")
            choices = known[name].choices
            if choices and value is not None and not set(value if isinstance(value, list) else [value]) <= set(choices):
                raise ConfigError(f"{path}: {name} is {value!r}; it can be {', '.join(map(repr, choices))}")
            if known[name].nargs == 0 and not isinstance(value, (bool, type(None))):
                raise ConfigError(f"{path}: {name} is {value!r}; it can be true and false")
            if known[name].type and value is not None:
                defaults[name] = _converted(known[name], value, f"{path}: {name}")
        return defaults


def at_least(lowest):
    """The type of an option that is a whole number, ``lowest`` or more."""

    def whole_number(text):
        if int(text) < lowest:
            raise argparse.ArgumentTypeError(f"it is at least {lowest}, not {text}")
        return int(text)

    return whole_number


def share(text):
    """The type of an option that is a probability or another number from 0 to 1."""
    if not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"it is from 0 to 1, not {text}")
    return float(text)


def _converted(action, value, where):
    """A value from a file, such as the text that YAML makes of 1e-3, as the command line would have it."""
    values = value if isinstance(value, list) else [value]
    count = 1 if action.nargs is None else action.nargs  # a number, or "+" for any
    if (isinstance(count, int) and len(values) != count) or (action.nargs is None and isinstance(value, list)):
        raise ConfigError(f"{where} is {value!r}; it takes {count} value{'s' if count > 1 else ', and no list'}")
    try:
        converted = [action.type(str(each)) for each in values]
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise ConfigError(f"{where} is {value!r}: {error}") from None
    return converted[0] if action.nargs is None else converted


def _near(word, known):
    near = difflib.get_close_matches(word, known, n=3)
    return f"; near ones are {', '.join(near)}" if near else ""


def run(job, resume_hint=""):
    """Run the job and return the exit code: 0; 2 after a user's mistake, told in one line; 130 after Ctrl-C.

    After SIGTERM it is 143, or 0 if the job has saved its work; ``resume_hint`` says how it is taken up again. Among
    several processes a failure ends this one at once, because ordinary shutdown waits for the others, and so that
    ``paddle.distributed.launch`` ends them.
    """
    hint = f"; {resume_hint}" if resume_hint else ""
    try:
        with preemption.raising():
            job()
    except preemption.Preempted as ended:
        return _told(f"{ended}{hint}", 0) if ended.saved else _failed(f"{ended}{hint}", 143)
    except KeyboardInterrupt:
        return _failed(f"interrupted{hint}", 130)
    except PimmError as error:
        return _failed(f"error: {error}", 2)
    except OSError as error:
        if error.errno in _FILE_TROUBLE:
            return _failed(f"error: {_file_trouble(error)}", 2)
        return _crashed()
    except Exception as error:
        return _bereft() if _lost_peer(error) else _crashed()
    return 0


def use_cores():
    """Let operators on a CPU use as many threads as OMP_NUM_THREADS says, and return how many.

    Without it they take all cores that this process may run on, shared evenly with the others of a launch on this
    machine; Paddle would take one.
    """
    if THREADS:
        return int(THREADS.partition(",")[0])
    from paddle.base import core

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, cores // int(os.environ.get("PADDLE_LOCAL_SIZE", "1")))
    core.set_num_threads(threads)
    return threads


def _file_trouble(error):
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return ": ".join([*names, os.strerror(error.errno)])


def _told(message, code):
    rank = os.environ.get("PADDLE_TRAINER_ID", "0")
    print(message if rank == "0" else f"[rank {rank}] {message}", file=sys.stderr)
    return code


def _failed(message, code):
    return _leave(_told(message, code))


def _crashed():
    traceback.print_exc()
    return _leave(1)


def _lost_peer(error):
    """Whether processes could not exchange something because another one ended, or never came."""
    places = ("/gloo/transport/", "/distributed/store/")
    return isinstance(error, (RuntimeError, ValueError)) and any(place in str(error) for place in places)


def _bereft():
    """Leave the word to the process that failed first: the launcher shows that one's log, and ends this one."""
    time.sleep(_LAUNCHER_PATIENCE)
    return _failed("error: another process of this run ended, or was half a minute late; its log says more", 1)


def _leave(code):
    if int(os.environ.get("PADDLE_TRAINERS_NUM", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code
