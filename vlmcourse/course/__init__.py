"""The course as a program: run the notebooks, keep them tidy, check the machine. `vlmcourse --help` lists the commands.

cli.py        the command line            notebooks.py  find, name and select notebooks; their parameters
run.py        run many, in parallel       hygiene.py    what a notebook must be like before it is committed
execute.py    run one (a subprocess)      refresh.py    renew stored outputs, metadata and the README's map
pages.py      index.html, summary.json    doctor.py     is everything here that the course needs?
"""
