"""The report of runs: one HTML file that shows what their run folders hold. It needs nothing else, no network either.

`document` reads run folders and chooses what is shown, `page` makes the file of it. What the page does with it stands
in `assets/`, plain JavaScript that is put into the file as it is.
"""
