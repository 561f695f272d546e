"""What memory jobs reserve, from measured peaks, and what there is for them, in MiB."""

import os

from comparison.study import TRACES, Comparison

SHARE = 0.8  # of the machine's memory
# A comparison in float64 holds both arms, their gradients and momenta, and the reference's step
# before and after. Measured peaks: 3250 for the smallest network over 200 steps, 4350 for W18,
# 6680, 7230, 9590, 11020, 12310 up to W48, 20150 for W64. Networks for other tasks go by
# what was measured (6670, 1330, 3190; 3040 for landmarks), OCR with 170 MiB a million parameters.
COMPARISON_MIB = {
    "cls_hrnet_w18": 4600,
    "cls_hrnet_w30": 7000,
    "cls_hrnet_w32": 7600,
    "cls_hrnet_w40": 10000,
    "cls_hrnet_w44": 11500,
    "cls_hrnet_w48": 12800,
    "cls_hrnet_w64": 20700,
    "pose_hrnet_w32": 7000,
    "seg_hrnet_w18_small_v1_cityscapes": 1600,
    "seg_hrnet_ocr_w48_cityscapes": 14000,
    "det_hrnetv2p_w18": 3500,
}
USUAL_MIB = 3500
TASK_MIB = 2000  # 1200 measured
TRACES_MIB = 4000  # W48 by parameters; 1790 measured for W32, for pose
SPEED_MIB = 6000  # all arms of a training step of W18, and one more in a process of its own
TRIAL_MIB = 9000  # reference and candidates with their steps, kept; 8530 measured


def usable_mib() -> int:
    """Return the memory that jobs may share: a part of what the machine has."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(SHARE * total / 2**20)


def comparison_mib(compared: Comparison) -> int:
    """Say what a comparison takes; recorded traces are replayed one network after another."""
    if compared.against == TRACES:
        return TRACES_MIB
    return COMPARISON_MIB.get(compared.network, USUAL_MIB)
