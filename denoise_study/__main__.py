"The commands without their scripts: `python -m denoise_study train --help`"
import sys

from denoise_study.study import command_line

sys.argv[0] = "python -m denoise_study"  # as results tell it
command_line(sys.argv[1:])
