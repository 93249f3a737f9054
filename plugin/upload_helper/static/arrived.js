// Files that had arrived before: in a form that came back with something to mend, or that the browser restores.

/** A file in the list of a widget which no uploader knows. */
export class Arrived {
  state = "done";
  file = null;
  path = "";
  uploadUid;
  name;
  size; // bytes
  bytes; // of them that have arrived: all

  constructor({ uploadUid, fileName, totalSize = 0 }) {
    this.uploadUid = uploadUid;
    this.name = fileName || uploadUid;
    this.size = totalSize;
    this.bytes = totalSize;
  }
}
