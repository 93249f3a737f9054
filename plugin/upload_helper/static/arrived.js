// Files that had arrived before: in a form that came back with something to mend, or that the browser restores.

/** A file in the list of a widget which no uploader knows. */
export class Arrived {
  state = "done";
  file = null;
  path = "";

  constructor({ uploadUid, fileName, totalSize = 0 }) {
    Object.assign(this, { uploadUid, name: fileName || uploadUid, size: totalSize, bytes: totalSize });
  }
}
