/** What the runtime refuses: an exception with the library's message and the kind of the error. */
export class CentroidError extends Error {
  /**
   * @param {string} message
   * @param {string} kind
   * @param {number} [text]
   */
  constructor(message, kind, text) {
    super(message);
    this.name = "CentroidError";
    this.kind = kind;
    if (text !== undefined) {
      this.text = text;
    }
  }
}
