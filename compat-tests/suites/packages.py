"""Installs the Debian packages that a suite needs, if what it needs of them is not there."""
import os
import pathlib
import shutil
import subprocess


def need(**packages):
    """`need(go="golang-go")`: a command and the package that brings it; `need_file` does the same for a file."""
    install([package for command, package in packages.items() if shutil.which(command) is None])


def need_file(path, package):
    install([] if pathlib.Path(path).exists() else [package])


def install(packages):
    if not packages:
        return
    print("installing:", *packages, flush=True)
    as_root = [] if os.getuid() == 0 else ["sudo"]
    subprocess.run([*as_root, "apt-get", "update", "-qq"], check=True, stdout=subprocess.DEVNULL)
    options = ["-y", "-qq", "--no-install-recommends"]
    subprocess.run([*as_root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", *options, *packages], check=True,
                   stdout=subprocess.DEVNULL)
