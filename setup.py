"""The one step of the build that setup.cfg cannot express: configs/ goes into the wheel, as seqcl/configs."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithConfigs(build_py):
    """Builds the package and puts the configurations into it; an editable install reads them where they are."""

    def run(self):
        super().run()
        if not self.editable_mode:
            shutil.copytree("configs", Path(self.build_lib, "seqcl", "configs"), dirs_exist_ok=True)


setup(cmdclass={"build_py": WithConfigs})
