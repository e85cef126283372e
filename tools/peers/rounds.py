"""Processes that run batches, one for every runtime, and the rounds in which they take turns."""

import ctypes
import json
import os
import signal
import statistics
import subprocess
import time


def cores(count):
    """`count` processors to run on: as far as there are enough, none shares a core with another."""
    allowed, chosen, siblings = sorted(os.sched_getaffinity(0)), [], set()
    for cpu in allowed:
        if cpu not in siblings:
            chosen.append(cpu)
            try:
                with open(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") as file:
                    for part in file.read().strip().split(","):
                        low, _, high = part.partition("-")
                        siblings.update(range(int(low), int(high or low) + 1))
            except OSError:
                pass
    chosen += [cpu for cpu in allowed if cpu not in chosen]
    return set(chosen[:count])


def settle(processors):
    """In a new process: run on these processors, and die with the parent, as a stopped process that
    nobody wakes would not. (PR_SET_PDEATHSIG is 1.)"""
    os.sched_setaffinity(0, processors)
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Runner:
    """A process as centroid.rs and peer.py describe it, on as many processors as it has threads. It is
    stopped but for when it is asked something, so that no idle pool spins in another's time."""

    def __init__(self, name, command, threads, log):
        self.name = name
        processors = cores(threads)
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
        start = time.perf_counter_ns()
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
            preexec_fn=lambda: settle(processors),
        )
        self.ready = self.answer()
        self.ready["process_ns"] = time.perf_counter_ns() - start
        self.process.send_signal(signal.SIGSTOP)

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with status {self.process.wait()}; see its log")
        return json.loads(line)

    def ask(self, **request):
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.answer()
        self.process.send_signal(signal.SIGSTOP)
        return answer

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def turns(runners, round_):
    """Every runner once, starting with another one each round."""
    at = round_ % len(runners)
    return runners[at:] + runners[:at]


def fixed(runners, work, settings):
    """Rounds over one workload: for every runner the calls of each round, in nanoseconds.

    A round gives each runner calls for about `settings["turn"]` seconds, after half as many to warm up
    (at least one, or none from the second round on where a call takes more than a second). Rounds go
    on until there are enough of them, and until `settings["seconds"]` are over or there are
    `settings["most"]`.
    """
    calls, warm = {}, {}
    for runner in runners:
        # The first call compiles, allocates and starts threads; the second says how long one takes.
        took = runner.ask(work=work, warm=1, calls=1)["ns"][0] / 1e9
        calls[runner.name] = max(1, min(50, round(settings["turn"] / took)))
        warm[runner.name] = 0 if took > 1 else max(1, calls[runner.name] // 2)
    times = {runner.name: [] for runner in runners}
    begin = time.monotonic()
    for round_ in range(settings["most"]):
        if round_ >= settings["rounds"] and time.monotonic() - begin > settings["seconds"]:
            break
        for runner in turns(runners, round_):
            answer = runner.ask(work=work, warm=warm[runner.name], calls=calls[runner.name])
            times[runner.name].append(answer["ns"])
    return times


def slices(runners, files):
    """Each runner runs every slice once, by turns: for every runner one call a slice.

    All have run the first slice before. OpenVINO runs every slice once before its time is taken, since
    it compiles code for each new shape that it meets; in a long-running service that cost goes away.
    """
    times = {runner.name: [] for runner in runners}
    for runner in runners:
        runner.ask(work=files[0], warm=1, calls=0)
    for at, file in enumerate(files):
        for runner in turns(runners, at):
            warm = 1 if runner.name.startswith("openvino") else 0
            times[runner.name].append(runner.ask(work=file, warm=warm, calls=1)["ns"])
    return times


def load(commands, threads, log, work, count):
    """Fresh processes by turns: what each said of its first result, with the peak of memory then and
    after the workload `work`."""
    found = {name: [] for name in commands}
    names = list(commands)
    for round_ in range(count):
        for name in turns(names, round_):
            runner = Runner(name, commands[name], threads, log)
            try:
                later = runner.ask(work=work, calls=1)["memory_peak"]
            finally:
                runner.end()
            found[name].append(runner.ready | {"memory_later": later})
    return found


def spread(values):
    """Median, 10th and 90th percentile."""
    values = sorted(values)
    if len(values) == 1:
        return [values[0]] * 3
    tenths = statistics.quantiles(values, n=10, method="inclusive")
    return [statistics.median(values), tenths[0], tenths[-1]]
