"""Human pose and facial landmarks (CVPR'19 section 3; TPAMI'20 sections 4 and 7)."""
