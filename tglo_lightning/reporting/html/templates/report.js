"use strict";
// Draws every plot in the colours of the style sheet, again when they change
const plots = [...document.querySelectorAll(".plot")].map((element) => {
  const source = element.querySelector("script");
  const text = source.textContent;
  source.remove();
  return { element, text };
});

function draw() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue("--plot-" + name).trim();
  const fine = matchMedia("(pointer: fine)").matches;
  for (const { element, text } of plots) {
    const figure = JSON.parse(text.replace(/"@([a-z0-9-]+)"/g, (_, name) => JSON.stringify(colour(name))));
    // A finger that scrolls the page must not zoom the plot
    figure.layout.dragmode = fine ? "zoom" : false;
    Plotly.react(element, figure.data, figure.layout, { responsive: true, displayModeBar: false });
  }
}

draw();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
// A plot behind a closed line has no width; printing wants everything open
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => { d.open = true; }));
document.documentElement.dataset.drawn = String(plots.length);
