/* The words of an answer, and where each of them came from. One script for the page of an answer, the page of a run,
   notebooks and the server's page; it needs answer.css and the colours of the pages.

   LimeAnswer.show(container, view) builds the view of an answer at the end of an element, and returns what changes it:
     append(words)         adds words at the end, and lets a screen reader say them politely; the focus stays
     update(index, fields) gives a word new fields: its maps, its verdict
     media(media)          shows other pictures and sounds
     finish(view)          gives all words their last fields, and shows cautions
     choose(index)         shows the map of a word, as a click does; -1 shows none
   LimeAnswer.showAll(root) shows what stands as JSON in elements script.lime-views: a list of views.

   `view` is an AnswerView of render/view.py. Its texts become text, never markup. */
globalThis.LimeAnswer ??= (() => {
  "use strict";
  const SOURCES = {image: "the picture", audio: "the sound", prompt: "the rest of the prompt", own: "the answer so far"};
  const VEIL = 0.82, TINT = 0.85;
  const FOR = [90, 174, 234], AGAINST = [255, 143, 69];
  let labels = 0;

  function make(parent, tag, className = "", text = "", attributes = {}) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== "") element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    parent?.append(element);
    return element;
  }

  const percent = (share) => `${Math.round(100 * share)} %`;
  const between = (value, low, high) => Math.min(high, Math.max(low, value));
  const kindsOf = (word) => Object.entries(word.shares ?? {}).filter(([, share]) => share > 0);
  const reliance = (word) => (word.shares?.image ?? 0) + (word.shares?.audio ?? 0);
  const plain = (word) => word.name || word.text.trim();

  /* "dog, 62 % from the picture, flagged: 96 % unsupported" */
  function spoken(word, from) {
    const parts = [plain(word)];
    for (const kind of ["image", "audio"]) {
      if (word.shares?.[kind] > 0) parts.push(`${percent(word.shares[kind])} from ${from[kind]}`);
    }
    const verdict = verdictOf(word);
    if (verdict) parts.push(word.flagged ? `flagged: ${verdict}` : verdict);
    return parts.join(", ");
  }

  /* What shares came from; of several pictures together, from the pictures. */
  const sources = (parts) => {
    const sounds = parts.filter((part) => part instanceof Sound).length, pictures = parts.length - sounds;
    return {
      ...SOURCES,
      ...(pictures > 1 && {image: "the pictures"}),
      ...(sounds > 1 && {audio: "the sounds"}),
    };
  };

  function verdictOf(word) {
    if (typeof word.p_unsupported === "number") return `${percent(word.p_unsupported)} unsupported`;
    return word.rank ? `rank ${word.rank}, where 1 is the least supported` : "";
  }

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
        this.audio.addEventListener("timeupdate", () => {
          if (this.stop !== undefined && this.audio.currentTime >= this.stop) this.audio.pause();
        });
        this.audio.addEventListener("pause", () => (this.stop = undefined));
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
      this.audio.play().catch(() => {});
    }
  }

  /* The outline of a waveform as a CSS shape: the loudest samples above, and the same below. */
  function outline(heights) {
    const at = (index, height) => `${(100 * index) / (heights.length - 1 || 1)}% ${50 - 49 * height}%`;
    const above = heights.map((height, index) => at(index, Math.max(height, 0.01)));
    const below = heights.map((height, index) => at(index, -Math.max(height, 0.01))).reverse();
    return `polygon(${[...above, ...below].join(",")})`;
  }

  class Answer {
    constructor(container, view) {
      this.words = [];
      this.buttons = [];
      this.chosen = this.hovered = -1;
      this.settings = {smooth: false, common: false, contrast: false};
      this.root = make(container, "section", "lime-answer");
      const title = `lime-title-${++labels}`;
      if (view.title) {
        make(this.root, "h2", "lime-title", view.title, {id: title});
        this.root.setAttribute("aria-labelledby", title);
      } else {
        this.root.setAttribute("aria-label", "Answer");
      }
      this.cautions = make(this.root, "div", "lime-cautions", "", {role: "note"});
      this.body = make(this.root, "div", "lime-body");
      const left = make(this.body, "div");
      this.line = make(left, "div", "lime-words", "", {role: "group", "aria-label": "The words of the answer"});
      this.rest = make(this.line, "span", "", view.words?.length ? "" : view.text ?? "");
      this.news = make(this.root, "p", "lime-hidden", "", {"aria-live": "polite"});
      make(left, "p", "lime-legend",
        "The stronger the blue behind a word, the more of it came from the input; a wavy line flags a word without support. " +
        "Choose a word to see what carried it: by a click, or with Tab and the arrow keys.");
      this.controls = make(left, "div", "lime-controls");
      this.shown = make(left, "div", "lime-shown", "", {"aria-live": "polite"});
      this.stage = make(this.body, "div", "lime-stage");
      this.details = make(this.root, "details", "lime-details");
      make(this.details, "summary", "", "All words in a table");
      this.details.addEventListener("toggle", () => this.details.open && this.tabulate());
      this.switches();
      this.line.addEventListener("keydown", (event) => this.key(event));
      this.media(view.media ?? []);
      this.caution(view.cautions ?? []);
      (view.words ?? []).forEach((word) => this.add(word));
      this.changed();
    }

    append(words) {
      for (const word of words) this.add(word);
      this.say(words.map((word) => (word.flagged ? spoken(word, sources(this.parts)) : word.text.trim())).join(" "));
      this.changed();
    }

    update(index, fields) {
      if (!this.words[index]) return;
      Object.assign(this.words[index], fields);
      this.dress(index);
      this.changed();
    }

    media(media) {
      this.stage.replaceChildren();
      this.body.classList.toggle("lime-wide", !media.length || media.length > 1 || media[0].kind === "audio");
      this.parts = media.map((medium) => new (medium.kind === "audio" ? Sound : Picture)(this.stage, medium));
      this.words.forEach((_, index) => this.dress(index));
      this.redraw();
    }

    finish(view) {
      (view.words ?? []).forEach((word, index) => {
        if (!this.words[index]) return this.add(word);
        Object.assign(this.words[index], word);
        this.dress(index);
      });
      if (view.cautions) this.caution(view.cautions);
      this.changed();
    }

    choose(index) {
      this.chosen = this.words[index] ? index : -1;
      this.buttons.forEach((button, at) => {
        button.setAttribute("aria-pressed", String(at === this.chosen));
        button.tabIndex = at === Math.max(this.chosen, 0) ? 0 : -1;
      });
      this.redraw();
      this.describe(this.words[this.chosen]);
    }

    add(given) {
      const word = {...given, text: String(given.text ?? "")};
      const index = this.words.push(word) - 1;
      const letters = word.text.trimStart();
      this.rest.textContent = "";
      this.line.append(word.text.slice(0, word.text.length - letters.length));
      const button = make(this.line, "span", "lime-word", letters, {role: "button", "aria-pressed": "false"});
      button.tabIndex = index ? -1 : 0;
      button.addEventListener("click", () => this.pick(index));
      button.addEventListener("focus", () => button.matches(":focus-visible") && this.choose(index));
      button.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && this.hover(index));
      button.addEventListener("pointerleave", () => this.hover(-1));
      this.buttons.push(button);
      this.dress(index);
    }

    dress(index) {
      const word = this.words[index], button = this.buttons[index];
      button.style.setProperty("--share", String(reliance(word)));
      button.classList.toggle("lime-flagged", Boolean(word.flagged));
      button.setAttribute("aria-label", spoken(word, sources(this.parts)));
    }

    pick(index) {
      const again = this.chosen === index && !this.words[index].maps?.some((map) => map?.interval);
      this.hovered = -1;
      this.choose(again ? -1 : index);
      if (!again) this.maps(this.words[index]).forEach((map, at) => map?.interval && this.parts[at]?.play(map.interval));
    }

    hover(index) {
      this.hovered = index;
      this.redraw();
    }

    key(event) {
      const at = this.buttons.indexOf(event.target), last = this.buttons.length - 1;
      if (at < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
      const goal = {ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: last}[event.key];
      if (goal !== undefined) {
        const index = between(goal, 0, last);
        this.choose(index);
        this.buttons[index].focus();
      } else if (event.key === "Enter" || event.key === " ") {
        this.pick(at);
      } else if (event.key === "Escape") {
        this.choose(-1);
      } else {
        return;
      }
      event.preventDefault();
    }

    maps(word) {
      return (this.settings.contrast ? word?.contrast?.maps : word?.maps) ?? [];
    }

    /* The relevance that is drawn as the brightest: of the word, or of all words; for pictures and sounds apart. */
    strongest(word, kind) {
      const words = this.settings.common ? this.words : [word];
      const peaks = words.flatMap((each) => this.maps(each)
        .filter((map, at) => wholeMap(map) && this.parts[at] instanceof Sound === kind)
        .map((map) => peak(map, this.settings.contrast)));
      return peaks.reduce((most, value) => Math.max(most, value), 0);
    }

    redraw() {
      const word = this.words[this.hovered >= 0 ? this.hovered : this.chosen];
      const maps = this.maps(word), several = this.parts?.length > 1;
      const strongest = {true: this.strongest(word, true), false: this.strongest(word, false)};
      this.parts?.forEach((part, at) => {
        part.draw(maps[at], strongest[part instanceof Sound], this.settings);
        const share = several && typeof maps[at]?.share === "number" ? `${percent(maps[at].share)} of the word` : "";
        const text = [share, maps[at]?.where].filter(Boolean).join(", ");
        part.text.textContent = text && `: ${text}`;
      });
    }

    describe(word) {
      this.shown.replaceChildren();
      if (!word) return make(this.shown, "p", "", this.words.length ? "No word is chosen." : "");
      const line = make(this.shown, "p");
      make(line, "strong", "", plain(word));
      const verdict = verdictOf(word);
      if (verdict) line.append(word.flagged ? `, flagged: ${verdict}` : `, ${verdict}`);
      const places = this.maps(word).filter((map) => map?.where).map((map) => map.where);
      if (places.length === 1) line.append(`; ${places[0]}`);
      const shares = make(this.shown, "ul", "lime-shares");
      const from = sources(this.parts);
      for (const [kind, share] of kindsOf(word)) {
        const item = make(shares, "li", `lime-${kind}`, `${percent(share)} from ${from[kind]}`);
        item.style.setProperty("--share", String(share));
      }
      if (!shares.childElementCount) shares.remove();
      if (word.rejected?.length) {
        make(this.shown, "p", "lime-rejected", `Not taken: ${rejectedOf(word)}.`);
      }
      if (word.contrast) make(this.shown, "p", "", contrastOf(word));
    }

    switches() {
      const add = (name, text) => {
        const label = make(this.controls, "label"), box = make(label, "input", "", "", {type: "checkbox"});
        label.append(` ${text}`);
        box.addEventListener("change", () => {
          this.settings[name] = box.checked;
          this.redraw();
          this.describe(this.words[this.chosen]);
        });
        return [label, label.lastChild];
      };
      add("common", "one scale for all words");
      add("smooth", "smooth maps");
      [this.against, this.rival] = add("contrast", "");
      this.against.hidden = true;
    }

    /* What depends on the words as a whole. */
    changed() {
      const word = this.words.find((each) => each.contrast);
      this.against.hidden = !word;
      if (word) this.rival.textContent = ` against “${word.contrast.word}”: blue for the word, orange against it`;
      if (this.details.open) this.tabulate();
      this.redraw();
      this.describe(this.words[this.chosen]);
    }

    caution(sentences) {
      this.cautions.replaceChildren();
      this.cautions.hidden = !sentences.length;
      for (const sentence of sentences) make(this.cautions, "p", "", sentence);
    }

    /* New words are said together, not one by one. */
    say(text) {
      this.unsaid = [this.unsaid, text].filter(Boolean).join(" ");
      this.timer ??= setTimeout(() => {
        this.news.textContent = this.unsaid;
        this.unsaid = this.timer = undefined;
      }, 600);
    }

    tabulate() {
      this.details.querySelector("div")?.remove();
      const from = sources(this.parts);
      const kinds = Object.keys(SOURCES).filter((kind) => this.words.some((word) => word.shares?.[kind] > 0));
      const box = make(this.details, "div", "lime-scroll", "", {tabindex: "0", role: "region", "aria-label": "All words"});
      const table = make(box, "table"), head = make(make(table, "thead"), "tr"), body = make(table, "tbody");
      const rejects = this.words.some((word) => word.rejected?.length);
      const titles = ["word", ...kinds.map((kind) => `from ${from[kind]}`), "support", "where", ...(rejects ? ["not taken"] : [])];
      for (const title of titles) make(head, "th", "", title, {scope: "col"});
      for (const word of this.words) {
        const row = make(body, "tr", word.flagged ? "lime-bad" : "");
        make(row, "th", "", plain(word), {scope: "row"});
        for (const kind of kinds) make(row, "td", "", word.shares ? percent(word.shares[kind] ?? 0) : "");
        make(row, "td", "", (word.flagged ? "flagged: " : "") + verdictOf(word));
        make(row, "td", "", (word.maps ?? []).map((map) => map?.where ?? "").filter(Boolean).join("; "));
        if (rejects) make(row, "td", "", rejectedOf(word));
      }
    }
  }

  const rejectedOf = (word) => (word.rejected ?? []).map(({text, why}) => `${text} (${why})`).join("; ");

  function contrastOf(word) {
    const {word: rival, margin} = word.contrast, more = margin >= 0 ? "more" : "less";
    return `The model gives “${plain(word)}” a logit that is ${Math.abs(margin).toFixed(1)} ${more} than that of “${rival}” in its place.`;
  }

  function show(container, view) {
    const answer = new Answer(container, view);
    const change = {};
    for (const name of ["append", "update", "media", "finish", "choose"]) change[name] = answer[name].bind(answer);
    return change;
  }

  function showAll(root = document) {
    for (const script of root.querySelectorAll("script.lime-views:not([data-shown])")) {
      script.dataset.shown = "yes";
      const views = JSON.parse(script.textContent), box = make(null, "div", "lime-answers");
      script.parentElement.querySelector(".lime-fallback")?.remove();
      script.before(box);
      for (const view of views) show(box, view);
    }
  }

  /* On paper the tables are open. */
  addEventListener("beforeprint", () => document.querySelectorAll(".lime-details").forEach((each) => (each.open = true)));
  return {show, showAll};
})();
if (document.readyState === "loading") addEventListener("DOMContentLoaded", () => LimeAnswer.showAll());
else LimeAnswer.showAll();
