"""Command lines: options with hints for wrong ones, defaults in a file, one line for a mistake, exit codes."""

from __future__ import annotations

import argparse
import errno
import os
import select
import signal
import sys
import time
import traceback

import yaml

from pimm import preemption
from pimm.errors import ConfigError, PimmError
from pimm.messages import did_you_mean
from pimm.threads import THREADS, thread_count, use_threads
from pimm.yaml_file import compose_yaml

# What the user can mend when the file system refuses; any other OSError is a fault of the program.
_FILE_TROUBLE = {
    getattr(errno, name)
    for name in (
        *("ENOENT", "EEXIST", "EACCES", "EPERM", "EISDIR", "ENOTDIR", "ENOSPC", "EDQUOT", "EFBIG", "EROFS"),
        *("ENAMETOOLONG", "ELOOP"),
    )
    if hasattr(errno, name)
}

# Seconds within which paddle.distributed.launch notices that a process has failed.
_LAUNCHER_PATIENCE = 10

# Variables that Paddle, numpy and matplotlib read as a whole number without a check, some of them on import.
_WHOLE_NUMBERS = {
    *("PADDLE_TRAINERS_NUM", "PADDLE_TRAINER_ID", "PADDLE_LOCAL_SIZE", "PADDLE_LOCAL_RANK", "SOURCE_DATE_EPOCH"),
}

_MOST_THREADS = 4096  # more than any machine has; OpenMP aborts where the system refuses a thread


class Parser(argparse.ArgumentParser):
    """Reads a command line, and answers a mistake in one line.

    ``--local_rank``, which older launchers append, is passed over.

    Args:
        config_file: let ``-c`` name a YAML file with defaults of the options, under their names with ``_`` for ``-``,
            as in the ``args.yaml`` of a training.
        kwargs: as of `argparse.ArgumentParser`.
    """

    def __init__(self, config_file=True, **kwargs):
        super().__init__(**kwargs)
        self.config_file = config_file
        if config_file:
            self.add_argument("-c", "--config", metavar="FILE", default="", help="YAML file with defaults")
        self.add_argument("--local_rank", "--local-rank", type=int, dest=argparse.SUPPRESS, help=argparse.SUPPRESS)

    def parse_args(self, args=None, namespace=None):
        """Parse the arguments, options and others in any order.

        Raises:
            ConfigError: the file holds an unknown option, or a value that the option does not take.
            SystemExit: any other mistake; its code is 2.
        """
        args = sys.argv[1:] if args is None else list(args)
        path = self._config_path(args) if self.config_file else ""
        if path:
            self.set_defaults(**self._read_defaults(path))
        self._refuse_options_of_others(args)
        parsed, unknown = self.parse_known_intermixed_args(args, namespace)
        if path != getattr(parsed, "config", path):
            self.error("--config is written out, or -c")
        if unknown:
            word = next((word for word in unknown if word.startswith("-")), unknown[0]).partition("=")[0]
            self.error(f"there is no option {word:.80}{did_you_mean(word, self._option_string_actions, count=3)}")
        return parsed

    def translate(self, option, value):
        """Return what to type here in place of another program's option, or None for an option that nobody has.

        Args:
            option: the option, such as ``--learning-rate``.
            value: the word after it, or None where another option follows.
        """
        return None

    def error(self, message):
        """End the program with one line that says what is wrong."""
        self.exit(2, f"error: {' '.join(message.split()):.330} (--help lists the options)\n")

    def _config_path(self, args):
        first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        first.add_argument("-c", "--config", default="")
        return first.parse_known_args(args)[0].config

    def _refuse_options_of_others(self, args):
        for word, following in zip(args, [*args[1:], "-"]):
            option, equals, value = word.partition("=")
            if option.startswith("-") and option not in self._option_string_actions:
                typed = self.translate(option, value if equals else None if following.startswith("-") else following)
                if typed is not None:
                    self.error(f"there is no option {option:.80} here; type {typed:.200}")

    def _read_defaults(self, path):
        root = compose_yaml(path)
        if not isinstance(root, yaml.MappingNode):
            raise ConfigError(f"{path} does not hold options and their values")
        known = {action.dest: action for action in self._actions}
        defaults = {}
        for name_node, node in root.value:
            name = str(name_node.value)
            if name not in known:
                raise ConfigError(f"{path}: there is no option {name:.80}{did_you_mean(name, known, count=3)}")
            defaults[name] = _default(known[name], node, f"{path}: {name}")
        return defaults


def _default(action, node, where):
    """Return a value from a file as the command line would have it; options of text take the text of the file."""
    value = _plain(node, where)
    if value is None:
        return None
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise ConfigError(f"{where} is {_quoted(value)}; it can be true and false")
        return value
    if type(action) is not argparse._StoreAction:  # it takes what it makes of words, such as a dictionary
        return value
    parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
    texts = [_text(part, where) if action.type is None else str(_plain(part, where)) for part in parts]
    one = action.nargs in (None, "?")
    count = action.nargs if isinstance(action.nargs, int) else 1 if one else len(texts)
    if len(texts) != count or (one and isinstance(node, yaml.SequenceNode)):
        takes = f"{count} values" if count > 1 else "1 value, and no list"
        raise ConfigError(f"{where} is {_quoted(value)}; it takes {takes}")
    try:
        converted = [text if action.type is None else action.type(text) for text in texts]
    except (ValueError, OverflowError, argparse.ArgumentTypeError) as error:
        raise ConfigError(f"{where} is {_quoted(value)}: {error!s:.200}") from None
    if action.choices and not set(converted) <= set(action.choices):
        raise ConfigError(f"{where} is {_quoted(value)}; it can be {', '.join(map(repr, action.choices))}")
    return converted[0] if one else converted


def _plain(node, where):
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(node)
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{where} cannot be read: {' '.join(str(error).split()):.200}") from None
    finally:
        loader.dispose()


def _text(node, where):
    if not isinstance(node, yaml.ScalarNode):
        raise ConfigError(f"{where} holds a list or a section where a value must be")
    return node.value


def _quoted(value):
    return f"{value!r:.80}"


def at_least(lowest):
    """Return the type of an option that is a whole number, ``lowest`` or more."""

    def read(text):
        return _number(text, int, "a whole number", lambda value: value >= lowest, f"at least {lowest}")

    return read


def share(text):
    """Read the value of an option that is a number from 0 to 1, such as a probability."""
    return _number(text, float, "a number", lambda value: 0 <= value <= 1, "from 0 to 1")


def _number(text, kind, name, is_valid, range_name):
    """Read a number of an option; the errors are those that argparse shows."""
    try:
        value = kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"it is {name}, not {text!r:.80}") from None
    if not is_valid(value):
        raise argparse.ArgumentTypeError(f"it is {range_name}, not {text}")
    return value


def run(job, resume_hint=""):
    """Run a job and return the exit code of the program.

    The code is 0 after success, 2 after a user's mistake, which is printed in one line, 1 after a fault of the
    program, and 130 after Ctrl-C. After SIGTERM it is 143, or 0 if the job has saved its work. Among several processes
    a failure ends this one at once, because an ordinary shutdown waits for the others, and so that
    ``paddle.distributed.launch`` ends them.

    Args:
        job: function without arguments.
        resume_hint: says how an interrupted job is resumed.
    """
    hint = f"; {resume_hint}" if resume_hint else ""
    try:
        _check_environment()
        with preemption.raising():
            job()
    except preemption.Preempted as ended:
        if not ended.saved:
            return _fail(f"{ended}{hint}", 143)
        _print_line(f"{ended}{hint}")
    except KeyboardInterrupt:
        return _fail(f"interrupted{hint}", 130)
    except PimmError as error:
        return _fail(f"error: {error}", 2)
    except OSError as error:
        if _output_is_closed(error):
            return _end_process(128 + signal.SIGPIPE)
        if error.errno in _FILE_TROUBLE:
            return _fail(f"error: {_file_trouble(error)}", 2)
        return _crash()
    except Exception as error:
        return _fail_after_others() if _lost_peer(error) else _crash()
    return 0


def _check_environment():
    """Raise ConfigError for a variable of the environment whose value would end the program in a library."""
    for name in sorted(_WHOLE_NUMBERS):
        text = os.environ.get(name, "0")
        if not _is_whole(text):
            raise ConfigError(f"the environment's {name} is {text!r:.80}; must be a whole number, or not be set")


def _is_whole(text):
    return text.isascii() and text.isdigit() and len(text) <= 11


def _output_is_closed(error):
    """Return whether nobody reads what the program prints, as after ``| head``; then let the rest go nowhere."""
    if not isinstance(error, BrokenPipeError):
        return False
    output = select.poll()
    output.register(sys.__stdout__, 0)
    closed = any(event & select.POLLERR for _, event in output.poll(0))
    if closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())
    return closed


def use_cores():
    """Import Paddle, let its operators on a CPU use as many threads as OMP_NUM_THREADS says, and return how many.

    Without OMP_NUM_THREADS they take all cores that this process may run on, shared evenly with the other processes of
    a launch on this machine; Paddle alone would take one.

    Raises:
        ConfigError: OMP_NUM_THREADS is no number of threads.
    """
    asked = THREADS and _threads(THREADS)  # before Paddle, which ends the program at a wrong number
    import paddle  # noqa: F401  (late: takes a second, which --help need not wait for)

    preemption.reclaim()
    if not asked:
        use_threads(thread_count())
    return thread_count()


def _threads(text):
    first = text.partition(",")[0].strip()
    if not (first.isascii() and first.isdigit() and 1 <= int(first[:6]) <= _MOST_THREADS):
        raise ConfigError(
            f"OMP_NUM_THREADS is {text!r:.80}; must be a whole number from 1 to {_MOST_THREADS}, or not be set"
        )
    return int(first)


def _file_trouble(error):
    names = [f"{name!s:.300}" for name in (error.filename, error.filename2) if name is not None]
    return ": ".join([*names, os.strerror(error.errno)])


def launched_as():
    """Return the rank of this process and the number of processes as the launcher gave them, without importing Paddle.

    A rank that the environment names without a launch does not count.
    """
    numbers = [os.environ.get(name, "") for name in ("PADDLE_TRAINERS_NUM", "PADDLE_TRAINER_ID")]
    processes, rank = (int(text) if _is_whole(text) else 0 for text in numbers)
    return (rank, processes) if processes > 1 else (0, 1)


def _print_line(message):
    """Print a message to stderr, with the rank of the process unless it is the first."""
    rank, _ = launched_as()
    print(message if rank == 0 else f"[rank {rank}] {message}", file=sys.stderr)


def _fail(message, code):
    _print_line(message)
    return _end_process(code)


def _crash():
    traceback.print_exc()
    return _end_process(1)


def _lost_peer(error):
    """Return whether processes could not exchange something because another one ended, or never came."""
    places = ("/gloo/transport/", "/distributed/store/")
    return isinstance(error, (RuntimeError, ValueError)) and any(place in str(error) for place in places)


def _fail_after_others():
    """Fail later than the process that failed first: the launcher shows the log of that one, and ends this one."""
    time.sleep(_LAUNCHER_PATIENCE)
    return _fail("error: another process of this run ended, or was half a minute late; its log says more", 1)


def _end_process(code):
    """Return the exit code, or end a process of several at once."""
    if launched_as()[1] > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code
