"""One module for each mode of the comparison, from the static inventory to the trajectory."""
