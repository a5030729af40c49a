/* The words of an answer, and where each of them came from. One script for the page of an answer, the page of a run,
   notebooks and the server's page; it needs media.js, curves.js, answer.css and the colours of the pages.

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
  const {make, between, peak, wholeMap, Picture, Sound} = LimeMedia;
  const SOURCES = {image: "the picture", audio: "the sound", prompt: "the rest of the prompt", own: "the answer so far"};
  const MARKS = {invented: "names what is not there", again: "names it again", differs: "not in every answer"};
  let labels = 0;

  const percent = (share) => `${Math.round(100 * share)} %`;
  const kindsOf = (word) => Object.entries(word.shares ?? {}).filter(([, share]) => share > 0);
  const reliance = (word) => (word.shares?.image ?? 0) + (word.shares?.audio ?? 0);
  const plain = (word) => word.name || word.text.trim();

  /* "dog, 62 % from the picture, flagged: 96 % unsupported" */
  function spoken(word, from) {
    const parts = [plain(word)];
    for (const kind of ["image", "audio"]) {
      if (word.shares?.[kind] > 0) parts.push(`${percent(word.shares[kind])} from ${from[kind]}`);
    }
    if (MARKS[word.mark]) parts.push(MARKS[word.mark]);
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

  class Answer {
    constructor(container, view) {
      this.words = [];
      this.buttons = [];
      this.chosen = this.hovered = -1;
      this.settings = {smooth: false, common: false, contrast: false};
      this.build(container, view);
      this.line.addEventListener("keydown", (event) => this.key(event));
      this.media(view.media ?? []);
      this.caution(view.cautions ?? []);
      (view.words ?? []).forEach((word) => this.add(word));
      this.changed();
    }

    /* The elements of the view, in the container. */
    build(container, view) {
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
      if (view.measured) make(left, "p", "lime-legend lime-measured", view.measured);
      this.controls = make(left, "div", "lime-controls");
      this.shown = make(left, "div", "lime-shown", "", {"aria-live": "polite"});
      this.stage = make(this.body, "div", "lime-stage");
      this.details = make(this.root, "details", "lime-details");
      make(this.details, "summary", "", "All words in a table");
      this.details.addEventListener("toggle", () => this.details.open && this.tabulate());
      this.switches();
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
      for (const mark of Object.keys(MARKS)) button.classList.toggle(`lime-${mark}`, word.mark === mark);
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

    /* What is shown of the chosen word; it is said again only where it has changed. */
    describe(word) {
      const shown = make(null, "div");
      this.tell(shown, word);
      if (shown.textContent !== this.shown.textContent) this.shown.replaceChildren(...shown.childNodes);
    }

    tell(shown, word) {
      if (!word) return make(shown, "p", "", this.words.length ? "No word is chosen." : "");
      const line = make(shown, "p");
      make(line, "strong", "", plain(word));
      if (MARKS[word.mark]) line.append(`, ${MARKS[word.mark]}`);
      const verdict = verdictOf(word);
      if (verdict) line.append(word.flagged ? `, flagged: ${verdict}` : `, ${verdict}`);
      const places = this.maps(word).filter((map) => map?.where).map((map) => map.where);
      if (places.length === 1) line.append(`; ${places[0]}`);
      const shares = make(shown, "ul", "lime-shares");
      const from = sources(this.parts);
      for (const [kind, share] of kindsOf(word)) {
        const item = make(shares, "li", `lime-${kind}`, `${percent(share)} from ${from[kind]}`);
        item.style.setProperty("--share", String(share));
      }
      if (!shares.childElementCount) shares.remove();
      if (word.rejected?.length) {
        make(shown, "p", "lime-rejected", `Not taken: ${rejectedOf(word)}.`);
      }
      if (word.contrast) make(shown, "p", "", contrastOf(word));
      for (const check of word.checks ?? []) LimeCurves.draw(shown, check, word.checks.length > 1);
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
  return {show, showAll, Answer};
})();
if (document.readyState === "loading") addEventListener("DOMContentLoaded", () => LimeAnswer.showAll());
else LimeAnswer.showAll();
