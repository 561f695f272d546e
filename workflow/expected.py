"""What jobs take, roughly, in seconds of one core: the longest begin first.

Measured on two cores of 2023; only the order matters, and a wrong guess costs a worker that stands
idle at the end. What needs all cores comes last, when nothing else waits for them.
"""

from collections.abc import Iterable

from workflow.jobs import ALL_CORES, Job

UNKNOWN_S = 30
BY_CASE_S = {"networks": 8, "differences": 12, "audit": 25}
FAMILY_S = {"networks": 100, "equivalence": 40}  # all for dense tasks, counted or replayed
TRIAL_S = {"quick": 110, "full": 4200}
EPOCH_S = {"digits": 14, "fashion_mnist": 500}  # of small_v1
LONG_EPOCH_S = 100_000  # of a folder of images
COMPARISON_S_PER_GIB = 35  # over ten steps
SCENE_MS = {"pose": 18, "segmentation": 12, "ocr": 16, "landmarks": 22, "detection": 40}


def seconds(job: Job) -> int:
    """Say roughly what a job takes; nothing for one that needs all cores."""
    given = job.parameters
    if job.threads == ALL_CORES:
        return 0
    if given.get("network") == "dense":
        return FAMILY_S.get(job.case, UNKNOWN_S)
    if job.case == "trial":
        return TRIAL_S.get(str(given["plan"]), UNKNOWN_S)
    if job.case == "training":
        name = str(given["data"]).partition(":")[0]
        return int(given["epochs"]) * EPOCH_S.get(name, LONG_EPOCH_S)
    if job.case == "equivalence":
        more_steps = int(given["steps"]) - 10
        share = 1 + more_steps / (40 if more_steps > 0 else 20)  # from 20 on no more run free
        return round(job.memory_mib / 1024 * COMPARISON_S_PER_GIB * share)
    if job.case == "tasks":
        scenes = int(given["epochs"]) * int(given["scenes"])
        return 1 + scenes * SCENE_MS[str(given["task"])] // 1000
    return BY_CASE_S.get(job.case, UNKNOWN_S)


def priorities(jobs: Iterable[Job]) -> dict[str, int]:
    """Return each job's place in the order by key: its seconds, and those of what waits for it."""
    jobs = list(jobs)
    return {
        job.key: seconds(job) + max((seconds(w) for w in jobs if job.key in w.depends), default=0)
        for job in jobs
    }
