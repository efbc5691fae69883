"""The steps that are known to wait through the proxy: a list that can only become shorter.

Holds: a step that waits and is not in the list is a problem, and so is a step of the list that waits no longer although it
does directly. Where the direct run does not wait either, the machine is too fast, or the table too small, to tell.
"""

import tomllib


class Expected:
    def __init__(self, path):
        self.path = path
        self.steps = tomllib.loads(path.read_text())

    def problems(self, report):
        known = self.steps.get(report.name, [])
        found = []
        for step in report.steps():
            direct, proxy = report.measured[step, "direct"], report.measured[step, "proxy"]
            worst = f"{proxy.waits.worst():.2f} s (directly {direct.waits.worst():.2f} s)"
            if proxy.over() and step not in known:
                found.append(f"{report.name}, {step}: the application waits for {worst}")
            elif step in known and proxy.within() and direct.over():
                found.append(f"{report.name}, {step}: waits only {worst}; strike it from {self.path.name}")
        found += [f"{report.name}: unknown step in {self.path.name}: {step}" for step in known if step not in report.steps()]
        return found
