"""A whole recipe on Ray: `python -m dataforge.pipelines.flow RECIPE`, as it stands or through `ray job submit`.

The same as `dataforge run RECIPE --on ray`, with what a job needs besides: settings of each part, and a workspace that
outlives the job's copy of the working directory. What is there already is found, so `--until STEP` and a second job on
other machines is how steps are placed apart; no step needs an entry point of its own.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from dataforge.cli import exit_code
from dataforge.cli.progress import progress
from dataforge.errors import ConfigError
from dataforge.pipelines.ray_runner import RayRunner
from dataforge.pipelines.resources import GIB
from dataforge.recipe import load_recipe, run_recipe
from dataforge.stage import Run
from dataforge.workspace import Workspace


@click.command("python -m dataforge.pipelines.flow", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("recipe", metavar="RECIPE.toml")
@click.option(
    "--workspace", "-w", "workspace_path", default=None, envvar="DATAFORGE_WORKSPACE", show_envvar=True,
    metavar="FOLDER", help="folder of the artifacts, on storage that all nodes share  "
    "[default: workspace; in a Ray job ~/dataforge-workspace]",
)  # fmt: skip
@click.option("--until", default=None, metavar="STEP", help="the last step to make")
@click.option(
    "--ray-address", default=None, envvar="RAY_ADDRESS", show_envvar=True,
    help="a Ray cluster's address, which a job knows by itself; without it a local Ray is started",
)  # fmt: skip
@click.option("--num-cpus", type=float, default=None, help="CPUs of one part  [default: by kind of artifact, mostly 1]")
@click.option("--memory-gib", type=float, default=None, help="memory reserved for one part  [default: by kind, 1 to 4]")
@click.option("--max-in-flight", default=512, show_default=True, help="most parts given to Ray at once")
@click.option("--max-retries", default=3, show_default=True, help="times a part is made again whose worker died")
@click.option("--allow-mixed", is_flag=True, help="let nodes of several device classes make one artifact")
@click.option("--dry-run", is_flag=True, help="say what would be made; make nothing")
@click.option("--json", "as_json", is_flag=True, help="the answer as one JSON value on stdout")
def command(
    recipe: str,
    workspace_path: str | None,
    until: str | None,
    ray_address: str | None,
    num_cpus: float | None,
    memory_gib: float | None,
    max_in_flight: int,
    max_retries: int,
    allow_mixed: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Everything that RECIPE names and that is not there yet, its parts on Ray; the references are printed in order."""
    read = load_recipe(recipe)
    # The step `train`, and what needs all parts of an artifact, run in this process; rows are read from mapped files.
    workspace = Workspace(workspace_folder(workspace_path, os.environ))
    print(f"workspace {workspace.path}", file=sys.stderr, flush=True)
    runner = RayRunner(
        ray_address,
        num_cpus=num_cpus,
        memory_bytes=None if memory_gib is None else int(memory_gib * GIB),
        max_in_flight=max_in_flight,
        max_retries=max_retries,
        allow_mixed=allow_mixed,
    )
    with runner:
        run = Run(runner=runner, progress=progress(), dry_run=dry_run, allow_mixed=allow_mixed)
        made = run_recipe(workspace, read, run=run, until=until)
    if as_json:
        print(json.dumps({name: artifact.ref for name, artifact in made.items()}))
    else:
        for artifact in made.values():
            print(artifact.ref)


def workspace_folder(given: str | None, environment: Mapping[str, str]) -> Path:
    """Where artifacts go: what was given, else `./workspace`, or in a Ray job `~/dataforge-workspace`.

    Raises:
        ConfigError: a relative folder in a job, which would lie in Ray's copy of the working directory and go with it.
    """
    in_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in environment
    if given is None:
        return Path.home() / "dataforge-workspace" if in_job else Path("workspace")
    if in_job and not Path(given).is_absolute():
        raise ConfigError(
            f"the workspace {given!r} is relative, and a job's working directory is a copy that Ray deletes",
            where=os.getcwd(),
            hint="give an absolute folder on storage that all nodes share: `--workspace /shared/workspace`",
        )
    return Path(given)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the flow; exit codes as of `dataforge`."""
    return exit_code(lambda: command.main(arguments, standalone_mode=False))


if __name__ == "__main__":
    # `ray job stop` and schedulers end a job by SIGTERM: like Ctrl-C, it stops the parts and keeps the finished ones.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
