// Browsers give a page that was opened as a file no Worker, which the theme's search needs: it runs in a hidden frame.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      this.ready = new Promise((resolve) => frame.addEventListener("load", () => resolve(frame.contentWindow)));
      frame.srcdoc = "<!doctype html><title>search</title>";
      document.body.append(frame);
      this.ready = this.ready.then((inside) => {
        const load = (source) => new Promise((resolve, reject) => {
          const script = inside.document.createElement("script");
          Object.assign(script, { src: source, async: false, onload: resolve, onerror: reject });
          inside.document.head.append(script);
        });
        inside.importScripts = (...sources) => sources.reduce((last, next) => last.then(() => load(next)), Promise.resolve());
        inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
        return load(url).then(() => inside);
      });
    }

    postMessage(data) {
      this.ready.then((inside) => inside.dispatchEvent(new MessageEvent("message", { data })));
    }

    terminate() {}
  };
  window.Worker = window.IFrameWorker;
}
