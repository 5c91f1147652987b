"""invoke's Program for this project's tasks: which words it takes, and where every command ends."""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Callable
from pathlib import Path

from invoke import Argument, Collection, Config, Exit, ParseError, Program

from cornerstone.cli.ending import end
from cornerstone.cli.words import Words
from cornerstone.lib.error import CornerstoneError

# What of invoke's own flags has an effect here. The others steer Context.run, which no task uses.
HONOURED = {"complete", "debug", "help", "list", "list-depth", "list-format", "print-completion-script", "version",
            "write-pyc"}
LIST_FORMATS = ("flat", "nested", "json")


class CommandLine(Program):
    """A Program whose tasks take words by position, and whose every end is a code of docs/errors.md.

    root: the checkout; before: called once the words are read, before the first task.
    """

    def __init__(self, namespace: Collection, root: Path, before: Callable[[], object]) -> None:
        wrapper = str(root / "invoke")
        super().__init__(namespace=namespace, name="Cornerstone", binary="./invoke",
                         binary_names=[wrapper, "./invoke", "invoke"])
        self.root = root
        self.before = before

    def core_args(self) -> list[Argument]:
        """The flags of invoke's own that have an effect here."""
        return [argument for argument in super().core_args() if argument.name in HONOURED]

    def create_config(self) -> None:
        """Make invoke's configuration without the files of system and user, which can't change this tool."""
        self.config = Config(lazy=True)

    def update_config(self, merge: bool = True) -> None:
        """Leave the configuration as it is: the flags that would change it aren't there."""

    def print_version(self) -> None:
        """Print the version in pyproject.toml and the commit of the checkout."""
        import tomllib

        from cornerstone.factory.evidence.provenance import source
        version = tomllib.loads((self.root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
        found = source(self.root)
        commit = found["digest"]["gitCommit"][:12] if "digest" in found else found["annotations"]["commit"]
        changes = " with changes" if found["annotations"].get("dirty") else ""
        print(f"{self.name} {version} (commit {commit}{changes})")

    def normalize_argv(self, argv: list[str] | None) -> None:
        """Take argv as invoke does, then give the words that a task takes by position their flags."""
        super().normalize_argv(argv)
        # A copy: a task gives the help for its arguments away when it is asked for them, once.
        words = Words(copy.deepcopy(self.namespace), self.initial_context)
        self.argv = [*self.argv[:1], *words.with_flags(self.argv[1:])]

    def no_tasks_given(self) -> None:
        """List the tasks."""
        self.list_tasks()
        raise Exit

    def run(self, argv: list[str] | None = None, exit: bool = True) -> None:
        """Do what argv says and end the process with its code; exit False returns instead when the code is 0."""
        code = end(lambda: self.perform(argv))
        if exit or code:
            sys.exit(code)

    def perform(self, argv: list[str] | None) -> None:
        """Do what argv says. Raises CornerstoneError for words that are wrong, Exit for an end with another code."""
        try:
            self.create_config()
            self.parse_core(argv)
            if self.args["list-format"].value not in LIST_FORMATS:
                raise CornerstoneError(f"there is no --list-format {self.args['list-format'].value!r}",
                                       f"known: {', '.join(LIST_FORMATS)}")
            self.parse_collection()
            self.parse_tasks()
            self.parse_cleanup()
        except ParseError as error:
            raise self.explain(error) from None
        except Exit as exit:
            if exit.message:
                raise CornerstoneError(exit.message, "./invoke --list shows the tasks") from None
            return
        except ValueError as error:
            raise CornerstoneError(f"the command line can't be read: {error}", "./invoke --help") from None
        self.before()
        self.execute()

    def explain(self, error: ParseError) -> CornerstoneError:
        """The error in the project's form, with the nearest word that is known as its hint."""
        said, task = str(error), error.context.name if error.context else None
        about = f"{task}: " if task else ""
        hint = f"./invoke --help {task or ''}".rstrip()
        if found := re.fullmatch(r"No idea what (['\"])(.*)\1 is!", said, re.S):
            hint = self.suggest(found[2], error.context.flag_names() if task else ())
        elif found := re.fullmatch(r"'.*' did not receive required positional arguments: (.*)", said):
            names = re.findall(r"'([^']+)'", found[1])
            said = f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} missing"
        return CornerstoneError(f"{about}{said}", hint)

    def suggest(self, word: str, flags: tuple[str, ...]) -> str:
        """How to mend a word that is neither a task nor, after a task, one of its flags."""
        from cornerstone.lib.yaml_document import did_you_mean
        core = {f"-{'-' * (len(name) > 1)}{name}" for argument in super().core_args() for name in argument.names}
        if word.startswith("-"):
            known = [*flags, *self.initial_context.flag_names()]
            return "no task here honours that flag of invoke: leave it out" if word in core - set(known) \
                else did_you_mean(word, known, "flags")
        if word in self.collection.collections:
            tasks = self.collection.collections[word].task_names
            return f"its tasks are {', '.join(f'{word}.{name}' for name in sorted(tasks))}"
        return did_you_mean(word, sorted(self.collection.task_names), "tasks")
