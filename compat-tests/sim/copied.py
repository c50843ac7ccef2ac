"""A copy of the source, for bugs to be put into, with a target folder of its own."""
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


class Copy:
    def __init__(self, name):
        self.path = ROOT / "target" / name

    def write(self):
        """Only what changed is written again, so that cargo builds only that."""
        self.path.mkdir(parents=True, exist_ok=True)
        wanted = set()
        for entry in ["Cargo.toml", "Cargo.lock", "build.rs", "jute", "src", "benches", "conf", "compat-tests/sim/mutants.txt"]:
            source = ROOT / entry
            files = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
            for path in files:
                wanted.add(path.relative_to(ROOT))
                self.put(path.relative_to(ROOT), path.read_bytes())
        for path in (self.path / "src").rglob("*.rs"):
            if path.relative_to(self.path) not in wanted:
                path.unlink()

    def put(self, file, content):
        path = self.path / file
        if not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def cargo(self, *words, **environment):
        environment = {**os.environ, "CARGO_TARGET_DIR": str(self.path / "target"), "RUSTFLAGS": "-Awarnings", **environment}
        return subprocess.run(["cargo", *words], cwd=self.path, env=environment, capture_output=True, text=True)

    def build_simulator(self):
        return self.cargo("build", "--quiet", "--locked", "--profile", "sim", "--bin", "zabra-sim")

    @property
    def simulator(self):
        return self.path / "target" / "sim" / "zabra-sim"
