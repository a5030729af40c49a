/* The answers about one picture or sound on the page of a run, with one map for all. Part of the one script of the
   pages, behind answer.js.

   An exhibit is an <article> with a picture or a sound, a <q> for each answer, and script.lime-exhibit, which holds as
   JSON {media, answers}: MediumViews without `src`, and for each <q> its WordViews or null. Without a script the page
   shows the same words and no maps. */
globalThis.LimeExhibit ??= (() => {
  "use strict";
  const {make, Picture, Sound} = LimeMedia;

  /* An answer whose map lies on the picture that it shares with others. */
  class Cited extends LimeAnswer.Answer {
    build(quote, view) {
      this.exhibit = view.exhibit;
      this.root = quote;
      quote.replaceChildren();
      quote.classList.add("lime-quote");
      this.line = make(quote, "span", "lime-words", "", {role: "group", "aria-label": `The words of the answer of ${view.title}`});
      this.rest = make(this.line, "span");
      this.shown = this.exhibit.shown;
      for (const unused of ["cautions", "body", "news", "controls", "stage"]) this[unused] = make(null, "div");
      this.details = make(null, "details");
      this.switches();
    }

    media() {
      this.parts = this.exhibit.parts;
    }

    choose(index) {
      if (this.words[index]) this.exhibit.take(this);
      super.choose(index);
    }

    hover(index) {
      super.hover(index);
      if (index < 0) this.exhibit.active?.redraw();
    }

    redraw() {
      if (this.exhibit.active === this || this.hovered >= 0) super.redraw();
    }

    describe(word) {
      if (this.exhibit.active === this) super.describe(word);
    }
  }

  class Exhibit {
    constructor(article, {media, answers}) {
      const still = article.querySelector("img, audio"), wave = article.querySelector(".wave");
      const text = still.alt || wave?.querySelector("title")?.textContent || "";
      this.box = make(null, "div", "lime-answer lime-exhibition");
      const stage = make(this.box, "div", "lime-stage");
      this.parts = media.map((medium) => new (medium.kind === "audio" ? Sound : Picture)(stage, {...medium, src: still.src}));
      for (const part of this.parts) part.image?.setAttribute(part instanceof Sound ? "aria-label" : "alt", text);
      this.shown = make(this.box, "div", "lime-shown", "", {"aria-live": "polite"});
      const quotes = [...article.querySelectorAll("q")];
      const cited = answers.map((words, at) => words && new Cited(quotes[at], {
        words,
        exhibit: this,
        title: quotes[at].parentElement.querySelector(".by")?.firstChild?.textContent.trim() ?? "",
      }));
      this.begin(cited.filter(Boolean));
      still.before(this.box);
      article.querySelector(".medium")?.remove();
      wave?.remove();
      still.remove();
    }

    take(answer) {
      const before = this.active;
      this.active = answer;
      if (before && before !== answer) before.choose(-1);
    }

    /* The first word that is in question is chosen at once: one that is judged, where there is such. */
    begin(answers) {
      const places = answers.flatMap((answer) => answer.words.map((word, index) => ({answer, word, index})));
      for (const mark of ["invented", "again", "differs", ""]) {
        const marked = places.filter(({word}) => word.mark === mark && word.maps?.some(Boolean));
        const first = marked.find(({word}) => word.rank) ?? marked[0];
        if (first) return first.answer.choose(first.index);
      }
    }
  }

  function showAll(root = document) {
    for (const script of root.querySelectorAll("script.lime-exhibit:not([data-shown])")) {
      script.dataset.shown = "yes";
      new Exhibit(script.closest("article"), JSON.parse(script.textContent));
    }
  }

  return {showAll};
})();
if (document.readyState === "loading") addEventListener("DOMContentLoaded", () => LimeExhibit.showAll());
else LimeExhibit.showAll();
