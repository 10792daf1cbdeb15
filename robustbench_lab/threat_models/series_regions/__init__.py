"""The geometry of the threat model `series`: one file for each thing that changes of a history must keep to."""
