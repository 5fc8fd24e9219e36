"The commands without their scripts: `python -m denoise_study train --help`"
import sys

from denoise_study.study import command_line

command_line(sys.argv[1:])
