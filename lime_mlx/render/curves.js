/* The check of a map: the probability of its word while cells are covered. It needs media.js and answer.css.

   LimeCurves.draw(container, check, named) adds a drawing and a sentence; check: a CheckView of render/view.py; named:
   says which kind of map it is. */
globalThis.LimeCurves ??= (() => {
  "use strict";
  const {make} = LimeMedia;
  const WIDTH = 400, HEIGHT = 150, LEFT = 44, TOP = 8, RIGHT = 130, BOTTOM = 34;
  const CURVES = {most: "brightest cells first", least: "darkest cells first", random: "random order"};

  /* The name space of drawings, from an empty one: the page holds no address. */
  const blank = document.createElement("template");
  blank.innerHTML = "<svg></svg>";
  const SPACE = blank.content.firstChild.namespaceURI;

  function svg(parent, name, attributes, text = "") {
    const element = document.createElementNS(SPACE, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.textContent = text;
    return parent.appendChild(element);
  }

  const x = (share) => LEFT + share * (WIDTH - LEFT - RIGHT);
  const y = (probability) => TOP + (1 - probability) * (HEIGHT - TOP - BOTTOM);

  function draw(container, check, named) {
    const box = make(container, "div", `lime-check lime-${check.outcome}`);
    const line = make(box, "p");
    if (named) make(line, "strong", "", `${check.map}: `);
    line.append(check.sentence);
    const drawing = svg(box, "svg", {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "lime-curves", role: "img"});
    svg(drawing, "title", {}, "The probability of the word while more and more cells are covered");
    svg(drawing, "path", {class: "lime-axis", d: `M${x(0)} ${y(1)}V${y(0)}H${x(1)}M${x(0)} ${y(0.5)}H${x(1)}`});
    for (const level of [0, 0.5, 1]) {
      svg(drawing, "text", {x: LEFT - 6, y: y(level) + 4, "text-anchor": "end"}, `${100 * level} %`);
      svg(drawing, "text", {x: x(level), y: HEIGHT - BOTTOM + 15, "text-anchor": "middle"}, `${100 * level} %`);
    }
    svg(drawing, "text", {x: x(0.5), y: HEIGHT - 4, "text-anchor": "middle"}, "cells covered");
    Object.entries(CURVES).forEach(([name, label], row) => {
      const points = check.covered.map((share, at) => `${x(share).toFixed(1)},${y(check[name][at]).toFixed(1)}`);
      svg(drawing, "polyline", {class: `lime-${name}`, points: points.join(" ")});
      const top = TOP + 14 + 18 * row;
      svg(drawing, "polyline", {class: `lime-${name}`, points: `${x(1) + 8},${top - 4} ${x(1) + 22},${top - 4}`});
      svg(drawing, "text", {class: `lime-${name}`, x: x(1) + 26, y: top}, label);
    });
  }

  return {draw};
})();
