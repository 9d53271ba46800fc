"""The rank's side of a call: the Ray actor of a slot, what it is asked, what it reports, and how it fails."""
