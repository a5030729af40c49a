/* Pictures and sounds, on which the map of a word is laid. Part of the one script of the pages, in front of answer.js.

   A medium is a MediumView, a map a MapView of render/view.py. Both classes have draw(map, strongest, settings), which
   shows a map or with undefined none, and play(interval), and `text`, the element that says where a map lies. */
globalThis.LimeMedia ??= (() => {
  "use strict";
  const VEIL = 0.82, TINT = 0.85;
  const FOR = [90, 174, 234], AGAINST = [255, 143, 69];

  function make(parent, tag, className = "", text = "", attributes = {}) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== "") element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    parent?.append(element);
    return element;
  }

  const between = (value, low, high) => Math.min(high, Math.max(low, value));

  const allowed = (kind, src) =>
    typeof src === "string" && (src.startsWith("blob:") || src.startsWith(kind === "image" ? "data:image/" : "data:audio/"));

  const wholeMap = (map) => map && map.values?.length === map.rows * map.columns && map.values.length > 0;
  const peak = (map, signed) => {
    let most = 0;
    for (const value of map.values) most = Math.max(most, signed ? Math.abs(value) : value);
    return most * (map.unit ?? 1);
  };

  /* A map into the pixels of a canvas, one for each cell. Where it is hidden, the veil is dark; a contrast is tinted. */
  function paint(canvas, map, strongest, contrast) {
    canvas.width = map.columns;
    canvas.height = map.rows;
    const context = canvas.getContext("2d");
    const image = context.createImageData(map.columns, map.rows);
    map.values.forEach((value, index) => {
      const part = (value * (map.unit ?? 1)) / (strongest || 1);
      const size = Math.sqrt(between(contrast ? Math.abs(part) : part, 0, 1));
      const colour = contrast ? (part > 0 ? FOR : AGAINST) : [0, 0, 0];
      image.data.set([...colour, Math.round(255 * (contrast ? TINT * size : VEIL * (1 - size)))], 4 * index);
    });
    context.putImageData(image, 0, 0);
  }

  /* A picture under its map. */
  class Picture {
    constructor(parent, medium) {
      this.figure = make(parent, "figure", "lime-medium");
      this.frame = make(this.figure, "div", "lime-frame");
      if (allowed("image", medium.src)) {
        this.image = make(this.frame, "img", "", "", {alt: medium.name || "picture", src: medium.src});
        if (medium.width > 0 && medium.height > 0) {
          this.image.width = medium.width;
          this.image.height = medium.height;
          this.frame.style.setProperty("--ratio", String(medium.width / medium.height));
        }
      } else {
        make(this.frame, "p", "lime-missing", medium.problem || "The picture cannot be shown.");
      }
      this.canvas = make(this.frame, "canvas", "lime-map", "", {"aria-hidden": "true"});
      this.canvas.hidden = true;
      const caption = make(this.figure, "figcaption");
      make(caption, "span", "lime-name", medium.name || "picture");
      this.text = make(caption, "span", "lime-where");
    }

    draw(map, strongest, {smooth, contrast}) {
      this.canvas.hidden = !(this.image && wholeMap(map));
      this.frame.classList.toggle("lime-grey", !this.canvas.hidden && contrast);
      this.canvas.classList.toggle("lime-smooth", smooth);
      if (!this.canvas.hidden) paint(this.canvas, map, strongest, contrast);
    }

    play() {}
  }

  /* A sound with its waveform, its log-mel spectrogram and the interval in which a word was heard. */
  class Sound extends Picture {
    constructor(parent, medium) {
      super(parent, {...medium, src: undefined, problem: " "});
      this.figure.classList.add("lime-sound");
      this.frame.replaceChildren();
      this.seconds = medium.seconds || medium.mapped || 1;
      this.mapped = medium.mapped || this.seconds;
      this.image = make(this.frame, "div", "lime-time", "", {role: "img", "aria-label": `Waveform of ${medium.name || "the sound"}`});
      if (medium.wave?.length) make(this.image, "div", "lime-wave").style.setProperty("clip-path", outline(medium.wave));
      if (allowed("image", medium.mel)) make(this.image, "img", "lime-mel", "", {alt: "", src: medium.mel});
      this.image.append(this.canvas);
      this.canvas.style.setProperty("width", `${(100 * this.mapped) / this.seconds}%`);
      this.mark = make(this.image, "div", "lime-heard");
      this.mark.hidden = true;
      if (allowed("audio", medium.src)) {
        this.audio = make(null, "audio", "", "", {controls: "", preload: "auto", src: medium.src, "aria-label": medium.name || "sound"});
        this.frame.append(this.audio);
        this.audio.addEventListener("timeupdate", () => this.halt());
        this.audio.addEventListener("pause", () => this.audio.paused && (this.stop = undefined));
        this.image.addEventListener("click", (event) => {
          const box = this.image.getBoundingClientRect();
          this.play([(this.seconds * (event.clientX - box.left)) / box.width]);
        });
      } else {
        make(this.frame, "p", "lime-missing", medium.problem || "The sound cannot be played.");
      }
    }

    draw(map, strongest, settings) {
      super.draw(map, strongest, settings);
      this.frame.classList.remove("lime-grey");
      const [start, stop] = (!settings.contrast && map?.interval) || [];
      this.mark.hidden = stop === undefined;
      if (stop === undefined) return;
      this.mark.style.setProperty("left", `${(100 * start) / this.seconds}%`);
      this.mark.style.setProperty("width", `${(100 * (Math.min(stop, this.seconds) - start)) / this.seconds}%`);
    }

    play([start, stop] = []) {
      if (!this.audio || start === undefined) return;
      this.audio.currentTime = start;
      this.stop = stop;
      this.audio.play().then(() => this.watch(), () => {});
    }

    halt() {
      if (this.stop !== undefined && this.audio.currentTime >= this.stop) this.audio.pause();
    }

    /* An interval ends on the frame; where a page is not seen there are no frames, and it ends a little later. */
    watch() {
      cancelAnimationFrame(this.frameRequest);
      this.halt();
      if (this.stop !== undefined && !this.audio.paused) this.frameRequest = requestAnimationFrame(() => this.watch());
    }
  }

  /* The outline of a waveform as a CSS shape: the loudest samples above, and the same below. */
  function outline(heights) {
    const at = (index, height) => `${(100 * index) / (heights.length - 1 || 1)}% ${50 - 49 * height}%`;
    const above = heights.map((height, index) => at(index, Math.max(height, 0.01)));
    const below = heights.map((height, index) => at(index, -Math.max(height, 0.01))).reverse();
    return `polygon(${[...above, ...below].join(",")})`;
  }

  return {make, between, peak, wholeMap, Picture, Sound};
})();
