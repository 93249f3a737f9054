"""``python -m upload_helper.cli``: what units run, so that they need no script on the path."""

from .main import main

if __name__ == "__main__":
    main(prog_name="upload-helper")
