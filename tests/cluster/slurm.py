"""A real Slurm on this machine for tests: two CPU nodes and two nodes with two GPUs that are null devices.

    python -m tests.cluster.slurm install          Debian's packages, as root
    python -m tests.cluster.slurm up FOLDER        then: . FOLDER/env.sh; sinfo
    python -m tests.cluster.slurm down FOLDER

No systemd, no cgroups, no accounting data base; every daemon listens on the loopback address and writes below FOLDER.
A memory limit is kept by sampling, so a job over it ends as FAILED. ``FOLDER/bin`` holds the Slurm commands with this
cluster's configuration: a step's snakemake drops ``SLURM_*`` from the environment, ``SLURM_CONF`` with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PACKAGES = ("munge", "slurmctld", "slurmd", "slurm-client")
CPU_NODES, GPU_NODES, GPUS = ("c1", "c2"), ("g1", "g2"), 2
NODES = CPU_NODES + GPU_NODES
COMMANDS = ("sbatch", "srun", "scancel", "squeue", "sinfo", "scontrol", "sacct", "sacctmgr")
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])

CONFIGURATION = """\
ClusterName=test
SlurmctldHost=localhost({address})
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/run/munge.sock
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=500
GresTypes=gpu
SlurmdParameters=config_overrides
SchedulerParameters=bf_interval=1,sched_interval=2,batch_sched_delay=0
SlurmdTimeout=10
MessageTimeout=5
TCPTimeout=2
KillWait=10
CompleteWait=0
InactiveLimit=0
ReturnToService=2
EnforcePartLimits=ANY
MinJobAge=3600
PriorityType=priority/basic
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
AccountingStorageType=accounting_storage/none
{nodes}
PartitionName=cpu Nodes={cpu_nodes} Default=YES MaxTime=24:00:00 DefaultTime=10 State=UP
PartitionName=gpu Nodes={gpu_nodes} MaxTime=24:00:00 DefaultTime=10 State=UP
"""


def obstacle() -> str | None:
    """Why no Slurm can be started here, or ``None``."""
    if os.name != "posix" or os.geteuid() != 0:
        return "needs root: slurmd and munged run as root"
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(name, path=PATH)]
    if missing:
        return f"not installed: {', '.join(missing)}; python -m tests.cluster.slurm install"
    try:
        address = socket.gethostbyname(socket.gethostname())
    except OSError:
        address = "nothing"
    if not address.startswith("127."):
        return f"the host's name means {address} and not the loopback address; put it into /etc/hosts"
    return None


def install() -> str:
    """Install Debian's packages where that is possible; says what was done."""
    if obstacle() is None:
        return "Slurm is installed"
    if os.name != "posix" or os.geteuid() != 0 or not shutil.which("apt-get"):
        return "Slurm is not installed: it needs root and apt-get"
    policy = Path("/usr/sbin/policy-rc.d")  # keeps the packages from starting daemons of their own
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        quiet = {"env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, "stdout": subprocess.DEVNULL,
                 "stderr": subprocess.STDOUT, "timeout": 300, "check": False}
        subprocess.run(["apt-get", "update", "-qq"], **quiet)
        done = subprocess.run(["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES], **quiet)
    except subprocess.TimeoutExpired:
        return "Slurm is not installed: apt-get took too long"
    finally:
        if ours:
            policy.unlink()
    return "Slurm is installed" if done.returncode == 0 else "Slurm is not installed: apt-get found no packages"


class Cluster:
    """The cluster of one folder; every process that it ends is known by its id and by its program."""

    def __init__(self, folder: Path):
        self.folder = folder.resolve()
        self.environment = {"SLURM_CONF": f"{self.folder}/etc/slurm.conf",
                            "PATH": f"{self.folder}/bin{os.pathsep}{PATH}"}

    def up(self) -> None:
        """Start what does not run, and wait until every node is up."""
        for name in ("etc", "run", "log", "state", "dev", "munge", "bin", *(f"spool/{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for name in ("munge", "state"):
            (self.folder / name).chmod(0o700)
        if not (self.folder / "etc/slurm.conf").exists():
            self._configure()
        if not self._pid("munged"):
            self._munge()
        if not self._pid("slurmctld"):
            self._run("slurmctld", "-f", self.environment["SLURM_CONF"])
            self._wait("slurmctld", lambda: "is UP" in self.call("scontrol", "ping"))
        for node in NODES:
            if not self._pid(f"slurmd.{node}"):
                self._run("slurmd", "-N", node, "-f", self.environment["SLURM_CONF"])
        self._wait("the nodes", lambda: set(self.call("sinfo", "-h", "-N", "-o", "%t").split()) <= {"idle", "mix",
                                                                                                    "alloc", "comp"})

    def down(self) -> None:
        """Cancel all jobs and stop the daemons."""
        with contextlib.suppress(subprocess.SubprocessError):
            if jobs := self.call("squeue", "-h", "-o", "%A").split():
                self.call("scancel", *jobs)
                self._wait("the jobs' end", lambda: not self.call("squeue", "-h", "-o", "%A").split(), quietly=True)
        for name in (*(f"slurmd.{node}" for node in NODES), "slurmctld", "munged"):
            if pid := self._pid(name):
                os.kill(pid, signal.SIGTERM)
                self._wait(name, lambda name=name: not self._pid(name), quietly=True)
        for node in NODES:
            self._end(self._steps(node))

    def kill_node(self, node: str) -> None:
        """As a crash of its host: its daemon, its jobs' daemons and their processes are killed."""
        self._end([self._pid(f"slurmd.{node}"), *self._steps(node)])
        self.call("scontrol", "update", f"nodename={node}", "state=down", "reason=killed")  # else noticed in 15 s

    def call(self, *words: str) -> str:
        """Output of a Slurm command."""
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False,
                              env={**os.environ, **self.environment})
        return done.stdout + done.stderr

    def jobs(self) -> list[dict[str, str]]:
        """Every job so far: id, comment (rule and wildcards), state, node, memory that it asked for."""
        keys = ("id", "comment", "state", "node", "memory", "elapsed")
        lines = self.call("squeue", "-h", "-t", "all", "-S", "i", "-o", "%A|%k|%T|%N|%m|%M").splitlines()
        return [dict(zip(keys, line.split("|"), strict=True)) for line in lines if line.count("|") == len(keys) - 1]

    # ---- inside ------------------------------------------------------------------------------------------------------

    def _configure(self) -> None:
        with contextlib.ExitStack() as held:  # consecutive free ports
            ports: list[int] = []
            while len(ports) < 1 + len(NODES):
                one = held.enter_context(socket.socket())
                one.bind(("127.0.0.1", 0))
                ports.append(one.getsockname()[1])
        address = socket.gethostbyname(socket.gethostname())
        nodes = "\n".join(f"NodeName={node} NodeHostname=localhost NodeAddr={address} Port={port} CPUs=8 "
                          f"RealMemory=16000{f' Gres=gpu:test:{GPUS}' if node in GPU_NODES else ''}"
                          for node, port in zip(NODES, ports[1:], strict=True))
        etc = self.folder / "etc"
        (etc / "slurm.conf").write_text(CONFIGURATION.format(
            address=address, port=ports[0], folder=self.folder, nodes=nodes, cpu_nodes=",".join(CPU_NODES),
            gpu_nodes=",".join(GPU_NODES)))
        (etc / "gres.conf").write_text(f"AutoDetect=off\nNodeName={','.join(GPU_NODES)} Name=gpu Type=test "
                                       f"File={self.folder}/dev/nvidia[0-{GPUS - 1}]\n")
        (etc / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")  # named, or slurmd asks for a file system of them
        for number in range(GPUS):
            os.mknod(self.folder / f"dev/nvidia{number}", 0o666 | 0o020000, os.makedev(1, 3))
        for command in COMMANDS:
            if real := shutil.which(command, path=PATH):
                script = self.folder / "bin" / command
                script.write_text(f'#!/bin/sh\nSLURM_CONF={etc}/slurm.conf exec {real} "$@"\n')
                script.chmod(0o755)
        (self.folder / "env.sh").write_text("".join(f"export {k}={v}\n" for k, v in self.environment.items()))

    def _munge(self) -> None:
        key = self.folder / "munge/key"
        if not key.exists():
            key.write_bytes(os.urandom(1024))
            key.chmod(0o400)
        munge = self.folder / "munge"
        self._run("munged", "--force", f"--socket={self.folder}/run/munge.sock", f"--key-file={key}",
                  f"--pid-file={munge}/munged.pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed")
        self._wait("munged", lambda: (self.folder / "run/munge.sock").exists())
        shutil.copy(munge / "munged.pid", self.folder / "run/munged.pid")

    def _run(self, *words: str) -> None:
        subprocess.run(words, cwd=self.folder / "log", check=True, timeout=30, capture_output=True,
                       env={**os.environ, "PATH": PATH, "SLURM_CONF": self.environment["SLURM_CONF"]})

    def _wait(self, what: str, condition, seconds: float = 30, quietly: bool = False) -> None:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                if quietly:
                    return
                logs = "\n".join(log.read_text()[-1000:] for log in (self.folder / "log").glob("*.log"))
                raise TimeoutError(f"{what} not there after {seconds:.0f} s\n{logs}")
            time.sleep(0.1)

    def _pid(self, name: str) -> int | None:
        """Process of a daemon of ours that runs (a zombie does not)."""
        try:
            pid = int((self.folder / f"run/{name}.pid").read_text())
            program = os.path.basename(os.readlink(f"/proc/{pid}/exe"))  # Debian's slurmd is slurmd-wlm
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if program.startswith(name.split(".")[0]) and str(self.folder).encode() in words else None

    def _steps(self, node: str) -> list[int]:
        """Processes of a node's jobs: its step daemons, which listen below its spool, and what they started."""
        spool = f"{self.folder}/spool/{node}/"
        inodes = {line.split()[6] for line in Path("/proc/net/unix").read_text().splitlines() if spool in line}
        sockets, found = {f"socket:[{inode}]" for inode in inodes}, []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.path.basename(os.readlink(process / "exe")).startswith("slurmstepd") and sockets & {
                        os.readlink(file) for file in (process / "fd").iterdir()}:
                    found += [int(process.name), *_children(int(process.name))]
        return found

    @staticmethod
    def _end(pids: list[int | None]) -> None:
        for pid in filter(None, pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *_children(child)]
    return found


if __name__ == "__main__":
    if sys.argv[1:] == ["install"]:
        print(install())
    elif len(sys.argv) == 3 and sys.argv[1] in ("up", "down"):
        getattr(Cluster(Path(sys.argv[2])), sys.argv[1])()
    else:
        sys.exit(__doc__)
