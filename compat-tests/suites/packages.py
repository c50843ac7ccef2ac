"""Installs what a suite needs, if it is not there: Debian packages, and Java's server."""
import os
import pathlib
import shutil
import subprocess

JAVA = pathlib.Path(__file__).resolve().parent.parent / "java"


def need(**packages):
    """`need(go="golang-go")`: a command and the package that brings it; `need_file` does the same for a file."""
    install([package for command, package in packages.items() if shutil.which(command) is None])


def need_file(path, package):
    install([] if pathlib.Path(path).exists() else [package])


def need_server():
    """Java's server, where it is the one under test."""
    if os.environ.get("SERVER") != "java":
        return
    need(java="default-jdk-headless", mvn="maven")
    if not list((JAVA / "target/lib").glob("zookeeper-3*.jar")):
        subprocess.run(["mvn", "--quiet", "--batch-mode", "-f", JAVA / "pom.xml", "dependency:copy-dependencies",
                        "-DoutputDirectory=target/lib"], check=True)


def install(packages):
    if not packages:
        return
    print("installing:", *packages, flush=True)
    as_root = [] if os.getuid() == 0 else ["sudo"]
    subprocess.run([*as_root, "apt-get", "update", "-qq"], check=True, stdout=subprocess.DEVNULL)
    options = ["-y", "-qq", "--no-install-recommends"]
    subprocess.run([*as_root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", *options, *packages], check=True,
                   stdout=subprocess.DEVNULL)
