"""The command line of a Hydra app, looked at before Hydra does: what is wrong with it is told in one line."""

import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from difflib import get_close_matches
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import (
    CompactHydraException,
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

import tglo_lightning

__all__ = ["CONFIG_DIR", "command", "unwritable"]

_PACKAGE = Path(tglo_lightning.__file__).parent
# In a wheel the configs lie inside of the package, in a checkout beside it.
CONFIG_DIR = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"


def command(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[..., Any]]:
    """`hydra.main` over the config of that name, which refuses a command line in one line, before anything runs.

    Of a sweep each job's config is composed and checked before the first job starts. Values that Hydra's grammar does
    not take only for want of quotes, such as `ckpt=epoch=11-step=288.ckpt`, are quoted.
    """

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[..., Any]:
        main = hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name=config_name)(task)

        @wraps(task)
        def run(cfg: DictConfig | None = None) -> Any:
            if cfg is None:
                try:
                    _check(config_name)
                except (_Refusal, HydraException) as error:
                    raise SystemExit(f"tglo-{config_name}: {_one_line(error)}") from error
            return main(cfg)

        return run

    return decorate


def unwritable(path: Path) -> str:
    """Why the file or directory `path` cannot be written or made; empty if it can. Leaves no trace."""
    try:
        if path.is_file():
            path.open("ab").close()
        else:
            there = next((folder for folder in (path, *path.absolute().parents) if folder.exists()), Path())
            tempfile.TemporaryDirectory(dir=there).cleanup()
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


class _Refusal(ValueError):
    """What is wrong with the command line, in one line."""


def _check(config_name: str) -> None:
    """Compose the config of every job that the command line asks for.

    Raises:
        _Refusal: an override cannot be read, or a key, an option or a directory is not there.
        HydraException: anything else that Hydra refuses.
    """
    args = get_args_parser().parse_args()
    elsewhere = args.config_path or args.experimental_rerun
    if args.help or args.hydra_help or args.shell_completion or args.info or elsewhere:
        return
    name = args.config_name or config_name
    found = [f"hydra.searchpath=['file://{Path(args.config_dir).absolute()}']"] if args.config_dir else []
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIG_DIR)):
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        quoted = {word: _quoted(word, parser) for word in args.overrides}
        sys.argv[1:] = [quoted.get(word, word) for word in sys.argv[1:]]
        overrides = parser.parse_overrides(list(quoted.values()))
        keys = {override.key_or_group for override in overrides}
        sweep = args.multirun or "hydra.mode" in keys
        jobs = [list(quoted.values())]
        if sweep:
            if "hydra/sweeper" in keys:
                return  # with ways of its own to write a sweep
            [jobs] = BasicSweeper.split_arguments(overrides, None)
        for job in jobs:
            cfg = _compose(name, [*found, *job], overrides)
            if args.cfg:
                continue
            _check_directory(cfg, "hydra.sweep.dir" if sweep else "hydra.run.dir")
            if sweep:
                _check_values(cfg, job)


def _quoted(word: str, parser: OverridesParser) -> str:
    """`word` as Hydra can read it.

    Raises:
        _Refusal: it cannot be, and it is not only quotes that are missing.
    """
    try:
        parser.parse_overrides([word])
        return word
    except OverrideParseException as error:
        key, equals, value = word.partition("=")
        if equals and value and not re.search(r"""[,'"\[\]{}]|^\w+\(|\\$""", value):
            with suppress(OverrideParseException):
                parser.parse_overrides([f"{key}='{value}'"])
                return f"{key}='{value}'"
        if not equals:
            raise _Refusal(f"{word}: must be key=value or group=option") from error
        reason = [line for line in str(error).splitlines() if not line.startswith(("Error parsing", "See "))]
        raise _Refusal(
            f"{word}: cannot be read ({' '.join(reason)}). A text that has signs such as = or [ in it is quoted, as in "
            f"\"{key}='TEXT'\""
        ) from error


def _compose(config_name: str, overrides: list[str], given: list[Override]) -> DictConfig:
    try:
        return compose(config_name, overrides, return_hydra_config=True)
    except MissingConfigException as error:
        missing = error.missing_cfg_file or ""
        # The group may have groups in it, experiment/paper/...
        group = next((g for g in (o.key_or_group for o in given) if missing.startswith(f"{g}/")), "")
        if not group:
            raise
        below = {str(f.relative_to(CONFIG_DIR / group).with_suffix("")) for f in (CONFIG_DIR / group).rglob("*.yaml")}
        choices = ", ".join(sorted({*(error.options or ()), *below}))
        raise _Refusal(f"{group}={missing.removeprefix(f'{group}/')}: not there; choose one of {choices}") from error
    except ConfigCompositionException as error:
        unknown = re.match(r"Could not override '([^']*)'\.\nTo append", str(error))
        if unknown is None:
            raise
        raise _Refusal(_unknown(unknown[1], config_name, overrides)) from error


def _unknown(key: str, config_name: str, overrides: list[str]) -> str:
    """What to say of a key that the config does not have: the nearest that it has, or how to add it."""
    chosen = [override for override in overrides if "." not in override.partition("=")[0]]
    cfg = None
    for known in (chosen, []):
        # Without what is wrong, another override may be wrong as well
        with suppress(HydraException):
            cfg = compose(config_name, [o for o in known if o.partition("=")[0] != key], return_hydra_config=True)
            break
    if cfg is None:
        return f"{key}: there is no such key"
    node, _, name = key.rpartition(".")
    target = OmegaConf.select(cfg, f"{node}._target_") if node else None
    if isinstance(target, str) and _takes(target, name):
        return f"{key}: not in the config; {target} has this argument, so write +{key}=..."
    groups = [str(folder.relative_to(CONFIG_DIR)) for folder in CONFIG_DIR.rglob("*") if folder.is_dir()]
    near = get_close_matches(key, [*_keys(cfg), *groups], n=1)
    nearest = f"; the nearest is {near[0]}" if near else ""
    return f"{key}: there is no such key{nearest} (tglo-{config_name} --help lists all)"


def _takes(target: str, name: str) -> bool:
    try:
        return name in signature(hydra.utils.get_object(target)).parameters
    except Exception:  # any that an import can raise
        return False


def _keys(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """The dotted keys of a config."""
    for key in map(str, node):
        yield f"{prefix}{key}"
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
            yield from _keys(child, f"{prefix}{key}.")


def _check_directory(cfg: DictConfig, key: str) -> None:
    with suppress(OmegaConfBaseException):
        folder = OmegaConf.select(cfg, key)
        if reason := unwritable(Path(str(folder))):
            raise _Refusal(f"{key}: {folder} cannot be written: {reason}")


def _check_values(cfg: DictConfig, job: list[str]) -> None:
    from tglo_lightning.cli.checks import ConfigError, check

    with open_dict(cfg):
        del cfg["hydra"]
        # A job has its directory only when it runs
        OmegaConf.update(cfg, "paths.output_dir", ".")
    try:
        check(cfg)
    except ConfigError as error:
        raise _Refusal(f"{error} (the job {' '.join(job)}; no job was started)") from error


def _one_line(error: Exception) -> str:
    text = str(error) if str(error) or error.__cause__ is None else str(error.__cause__)
    if isinstance(error, CompactHydraException) and isinstance(error.__cause__, OmegaConfBaseException):
        text = f"{error}: {str(error.__cause__).splitlines()[0]}" if str(error) else str(error.__cause__)
    return " ".join(text.split())
