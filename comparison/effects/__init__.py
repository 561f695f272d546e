"""The measured effect of each documented difference (DEVIATIONS.md), on the machine at hand.

Every function reruns the statement it belongs to, both arms as black boxes. It says by how much,
and whether what DEVIATIONS.md says still holds: a difference that has gone, or that was never
there, is a finding too.
"""
